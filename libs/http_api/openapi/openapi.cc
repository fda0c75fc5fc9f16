#include "http_api/openapi/openapi.h"

#include <algorithm>
#include <vector>

#include "http_api/chat/chat_request.h"
#include "http_api/jobs/job_fields.h"
#include "http_api/jobs/job_list.h"
#include "http_api/metaseq/metaseq_request.h"
#include "http_api/ollama/ollama_request.h"
#include "http_api/openai/completion_fields.h"
#include "http_api/openai/json_text.h"
#include "http_api/responses/response_request.h"
#include "http_api/tokenize/tokenize.h"

namespace optserve::http_api {
namespace {

using nlohmann::ordered_json;

using Fields = const FieldTable& (*)();

// A parameter of a query; `schema` is JSON.
struct QueryParameter {
  std::string_view name, schema, help;
};

struct Operation {
  std::string_view method, path, summary;
  Fields fields = nullptr;  // of the body; null if there is none, or no single table describes it
  std::vector<QueryParameter> query{};
  std::vector<std::string_view> statuses = {"200"};
  std::vector<std::string_view> types = {"application/json"};
};

constexpr std::string_view kEvents = "text/event-stream", kJson = "application/json";
constexpr std::string_view kText = R"({"type":"string"})",
                           kName = R"({"type":"string","pattern":"^[A-Za-z0-9._-]{0,64}$"})";

std::vector<Operation> operations_of_text() {
  return {
      {"POST", "/v1/completions", "A completion", completion_fields, {}, {"200", "202"}, {kJson, kEvents}},
      {"POST",
       "/v1/chat/completions",
       "An answer in a conversation",
       chat_fields,
       {},
       {"200", "202"},
       {kJson, kEvents}},
      {"POST", "/v1/responses", "A response", response_fields, {}, {"200"}, {kJson, kEvents}},
      {"GET",
       "/v1/responses/{id}",
       "A response, or its events",
       nullptr,
       {{"stream", R"({"type":"string","enum":["true","false"]})", "As events"},
        {"starting_after", R"({"type":"integer","minimum":0,"maximum":1000000})", "After the event of this number"}},
       {"200"},
       {kJson, kEvents}},
      {"POST", "/v1/responses/{id}/cancel", "End a response"},
      {"DELETE", "/v1/responses/{id}", "End a response and forget it"},
      {"GET", "/v1/models", "Models"},
      {"GET", "/v1/models/{id...}", "A model"},
      {"POST", "/tokenize", "Token ids of a text", tokenize_fields},
      {"POST", "/detokenize", "The text of token ids", detokenize_fields},
      {"GET", "/tokenizer_info", "Special tokens of a model", nullptr, {{"model", kText, "Name of the model"}}},
      {"POST", "/completions", "Metaseq's completion", metaseq_fields},
      {"POST", "/generate", "Metaseq's completion", metaseq_fields},
      {"POST", "/engines/{name}/completions", "Metaseq's completion", metaseq_fields},
      {"POST", "/v1/engines/{name}/completions", "Metaseq's completion", metaseq_fields},
      {"POST", "/v2/engines/{name}/completions", "Metaseq's completion", metaseq_fields},
      {"GET", "/api/version", "Ollama's version"},
      {"GET", "/api/tags", "Ollama's list of models"},
      {"GET", "/api/ps", "Ollama's list of running models"},
      {"POST", "/api/show", "Ollama's facts of a model", ollama_show_fields},
      {"POST", "/api/generate", "Ollama's completion", ollama_generate_fields, {}, {"200"}, {kJson, kNdjson}},
      {"POST", "/api/chat", "Ollama's answer in a conversation", ollama_chat_fields, {}, {"200"}, {kJson, kNdjson}},
  };
}

std::vector<Operation> operations_of_jobs() {
  return {
      {"POST", "/v1/jobs", "Queue a job; several as {\"jobs\": […]}", job_fields, {}, {"202"}},
      {"GET",
       "/v1/jobs",
       "List jobs",
       nullptr,
       {{"state", R"({"type":"string","enum":["queued","running","succeeded","failed","cancelled","expired","dead"]})",
         "Jobs in this state"},
        {"model", kName, "Jobs of this model"},
        {"group", kName, "Jobs of this group"},
        {"tenant", kName, "Jobs of this tenant"},
        {"limit", R"({"type":"integer","minimum":1,"maximum":1000})", "Most jobs of a page"},
        {"order", R"({"type":"string","enum":["asc","desc"]})", "Oldest or newest first"},
        {"after", kText, "The `next` of the page before"}}},
      {"DELETE",
       "/v1/jobs",
       "Delete ended jobs",
       nullptr,
       {{"state", R"({"type":"string","enum":["succeeded","failed","cancelled","expired","dead"]})",
         "Jobs in this state"},
        {"model", kName, "Jobs of this model"},
        {"group", kName, "Jobs of this group"},
        {"tenant", kName, "Jobs of this tenant"}}},
      {"GET", "/v1/jobs/{id}", "The state of a job"},
      {"DELETE", "/v1/jobs/{id}", "Delete a job that has ended"},
      {"GET", "/v1/jobs/{id}/result", "The result of a job", nullptr, {}, {"200", "202"}},
      {"GET", "/v1/jobs/{id}/record", "A job with its times and texts of tokens"},
      {"GET", "/v1/jobs/{id}/events", "The output of a job as it comes", nullptr, {}, {"200"}, {kEvents}},
      {"POST", "/v1/jobs/{id}/cancel", "End a job"},
      {"POST", "/v1/jobs/{id}/requeue", "Queue a dead job again"},
      {"GET", "/v1/groups/{name}", "Jobs of a group, counted", nullptr, {{"tenant", kName, "Whose group"}}},
      {"POST", "/v1/groups/{name}/cancel", "End the jobs of a group", nullptr, {{"tenant", kName, "Whose group"}}},
      {"GET", "/v1/queue", "State of schedulers, queues and services", nullptr, {}, {"200", "503"}},
      {"POST", "/v1/queue", "Pause, drain or resume", queue_control_fields},
  };
}

std::vector<Operation> operations_of_files() {
  return {
      {"POST", "/v1/files", "Keep a file (multipart/form-data)"},
      {"GET", "/v1/files", "List files"},
      {"GET", "/v1/files/{id}", "A file"},
      {"GET", "/v1/files/{id}/content", "The bytes of a file", nullptr, {}, {"200"}, {"application/octet-stream"}},
      {"DELETE", "/v1/files/{id}", "Delete a file"},
      {"POST", "/v1/batches", "Begin a batch"},
      {"GET", "/v1/batches", "List batches"},
      {"GET", "/v1/batches/{id}", "A batch"},
      {"POST", "/v1/batches/{id}/cancel", "End a batch"},
  };
}

std::vector<Operation> operations_of_servers() {
  const std::vector<std::string_view> any{};
  return {
      {"GET", "/version", "The version of the gateway"},
      {"GET", "/health", "Whether a scheduler answers", nullptr, {}, {"200", "503"}, any},
      {"GET", "/metrics", "Metrics for Prometheus", nullptr, {}, {"200"}, any},
      {"GET", "/livez", "Whether the process lives", nullptr, {}, {"200", "503"}, any},
      {"GET", "/readyz", "Whether it is ready", nullptr, {}, {"200", "503"}, any},
      {"GET", "/startupz", "Whether it has started", nullptr, {}, {"200", "503"}, any},
      {"GET", "/openapi.json", "This document"},
      {"GET", "/ui", "The page", nullptr, {}, {"200", "301", "302", "307", "308"}, any},
      {"GET", "/ui/{file...}", "A file of the page", nullptr, {}, {"200"}, any},
  };
}

const std::vector<Operation>& operations() {
  static const std::vector<Operation> kAll = [] {
    std::vector<Operation> all = operations_of_text();
    for (const auto& more : {operations_of_jobs(), operations_of_files(), operations_of_servers()}) {
      all.insert(all.end(), more.begin(), more.end());
    }
    return all;
  }();
  return kAll;
}

const Operation* operation_of(const RouteName& route) {
  const auto found = std::ranges::find_if(
      operations(), [&](const Operation& one) { return one.method == route.first && one.path == route.second; });
  return found == operations().end() ? nullptr : &*found;
}

ordered_json body_schema(const FieldTable& table) {
  ordered_json schema{{"type", "object"}, {"additionalProperties", false}, {"properties", ordered_json::object()}};
  for (const FieldInfo& field : table) {
    const std::string name(field.name);
    schema["properties"][name] = field_schema(field);
    if (field.required) schema["required"].push_back(name);
  }
  return schema;
}

// "{id...}" of a pattern is "{id}" of a document. Adds the names of parameters to `names`.
std::string path_of(std::string_view pattern, std::vector<std::string>& names) {
  std::string path(pattern);
  if (const size_t dots = path.find("...}"); dots != std::string::npos) path.erase(dots, 3);
  for (size_t at = 0; (at = path.find('{', at)) != std::string::npos; ++at) {
    names.push_back(path.substr(at + 1, path.find('}', at) - at - 1));
  }
  return path;
}

ordered_json answers_of(const Operation& operation) {
  ordered_json answers;
  for (const std::string_view status : operation.statuses) {
    ordered_json& answer = answers[std::string(status)];
    answer["description"] = status == "202" ? "Queued" : "Done";
    for (const std::string_view type : operation.types) answer["content"][std::string(type)] = ordered_json::object();
  }
  const ordered_json error{{"$ref", "#/components/responses/Error"}};
  answers["4XX"] = error;
  answers["5XX"] = error;
  return answers;
}

ordered_json operation_json(const RouteName& route, const std::vector<std::string>& path_names) {
  const Operation listed{route.first, route.second, "", nullptr, {}, {"200"}, {}};
  const Operation* found = operation_of(route);
  const Operation& operation = found != nullptr ? *found : listed;
  ordered_json json{{"summary", operation.summary}};
  for (const std::string& name : path_names) {
    json["parameters"].push_back(
        {{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}, {"minLength", 1}}}});
  }
  for (const QueryParameter& parameter : operation.query) {
    json["parameters"].push_back({{"name", parameter.name},
                                  {"in", "query"},
                                  {"description", parameter.help},
                                  {"schema", ordered_json::parse(parameter.schema)}});
  }
  if (operation.fields != nullptr) {
    const ordered_json schema = body_schema(operation.fields());  // an empty body means no fields
    json["requestBody"] = {{"required", schema.contains("required")},
                           {"content", {{std::string(kJson), {{"schema", schema}}}}}};
  }
  json["responses"] = answers_of(operation);
  return json;
}

std::string lower_case(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

}  // namespace

std::string openapi_document(std::span<const RouteName> routes, std::string_view version) {
  std::vector<RouteName> sorted(routes.begin(), routes.end());
  std::ranges::sort(sorted, {}, [](const RouteName& route) { return std::pair(route.second, route.first); });
  ordered_json paths = ordered_json::object();
  for (const RouteName& route : sorted) {
    std::vector<std::string> names;
    const std::string path = path_of(route.second, names);
    paths[path][lower_case(route.first)] = operation_json(route, names);
  }
  const ordered_json error_schema{{"type", "object"},
                                  {"required", ordered_json::array({"error"})},
                                  {"properties", {{"error", ordered_json::object()}}}};
  const ordered_json error{{"description", "Why not; docs/http_api.md lists the codes"},
                           {"content", {{std::string(kJson), {{"schema", error_schema}}}}}};
  return json_text(
      {{"openapi", "3.1.0"},
       {"info", {{"title", "optserve"}, {"version", version}}},
       {"paths", std::move(paths)},
       {"components",
        {{"responses", {{"Error", error}}}, {"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}},
       {"security", ordered_json::array({ordered_json::object(), ordered_json{{"key", ordered_json::array()}}})}});
}

bool is_described(const RouteName& route) { return operation_of(route) != nullptr; }

}  // namespace optserve::http_api
