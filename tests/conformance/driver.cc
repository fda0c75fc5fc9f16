// Runs the calls of a conformance case through the C++ client library and prints what the caller gets, as JSON. Reads
// {"endpoints", "timeout_ms", "calls"} from its input. With --vectors it prints what the hashing of clients gives.
#include <future>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "client/client.h"
#include "client/scheduler_choice.h"

namespace optserve::conformance {
namespace {

using Json = nlohmann::ordered_json;
using client::Client;
using protocol::JobResult;

// A value or a struct from its JSON, field by field; enumerations are numbers, ids are hexadecimal.
template <class T>
void read(const Json& json, T& value);

template <class T>
void read(const Json& json, std::vector<T>& values) {
  for (const Json& item : json) read(item, values.emplace_back());
}

template <class T>
void read(const Json& json, std::optional<T>& value) {
  if (!json.is_null()) read(json, value.emplace());
}

template <class T>
void read(const Json& json, T& value) {
  if constexpr (std::is_enum_v<T>) {
    value = static_cast<T>(json.get<int>());
  } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
    value = json.get<T>();
  } else if constexpr (std::is_same_v<T, JobId>) {
    value = JobId::from_hex(json.get<std::string>()).value();
  } else {
    value.fields([&](std::string_view name, auto& field) {
      const std::string plain(name.substr(name.starts_with('!') ? 1 : 0));
      if (json.contains(plain)) read(json[plain], field);
    });
  }
}

template <class T>
T read(const Json& json) {
  T value{};
  read(json, value);
  return value;
}

Json refused(const Refusal& why) { return {{"error", error_code_name(why.code)}, {"message", why.message}}; }

Json told(const JobResult& result) {
  Json json = {{"job", result.job.hex()}, {"state", protocol::job_state_name(result.state)}, {"text", result.text}};
  if (result.error) json["failed_with"] = error_code_name(*result.error);
  return json;
}

template <class T>
Json told(const Result<T>& result) {
  return result.ok() ? told(result.value()) : refused(result.refusal());
}

// What a stream delivers, until it ends.
struct Followed {
  std::string streamed;
  int restarts = 0;
  std::promise<Json> end;

  client::JobStream stream() {
    client::JobStream stream;
    stream.on_text = [this](std::string_view piece, const protocol::JobEvent&) { streamed += piece; };
    stream.on_restarted = [this](const JobId&) { ++restarts, streamed.clear(); };
    stream.on_finished = [this](const JobResult& result) { end.set_value(told(result)); };
    stream.on_lost = [this](const JobId&, const Refusal& why) { end.set_value(refused(why)); };
    return stream;
  }
  Json wait() {
    Json json = end.get_future().get();
    json["streamed"] = streamed;
    json["restarts"] = restarts;
    return json;
  }
};

Json outcome_of(const protocol::SubmitOutcome& outcome) {
  if (!outcome.job) return refused({outcome.error.value_or(ErrorCode::kInternal), outcome.message});
  return {{"job", outcome.job->hex()}, {"duplicate", outcome.duplicate}};
}

Json generate(Client& client, const Json& call) {
  Followed followed;
  const auto outcomes = client.submit({read<protocol::JobSpec>(call["job"])}, followed.stream());
  if (!outcomes.ok()) return refused(outcomes.refusal());
  const protocol::SubmitOutcome& outcome = outcomes.value().at(0);
  return outcome.job ? followed.wait() : outcome_of(outcome);
}

Json attach(Client& client, const Json& call) {
  Followed followed;
  const Status status =
      client.attach(read<JobId>(call["job"]), call.value("text_offset", uint64_t{0}), followed.stream());
  return status.ok() ? followed.wait() : refused(status.refusal());
}

Json submit(Client& client, const Json& call) {
  const auto outcomes = client.submit(read<std::vector<protocol::JobSpec>>(call["jobs"]));
  if (!outcomes.ok()) return refused(outcomes.refusal());
  Json all = Json::array();
  for (const auto& outcome : outcomes.value()) all.push_back(outcome_of(outcome));
  return {{"outcomes", all}};
}

template <class T>
Json each(const client::Answers<T>& answers, const std::function<Json(const T&)>& tell) {
  Json all = Json::array();
  for (const auto& [endpoint, answer] : answers) {
    all.push_back(answer.ok() ? tell(answer.value()) : Json{{"error", error_code_name(answer.refusal().code)}});
  }
  return {{"answers", all}};
}

Json told_status(const protocol::SystemStatus& status) {
  return {{"term", status.term}, {"queued", status.queued}, {"mode", protocol::queue_mode_name(status.mode)}};
}

Json told_list(const protocol::JobList& list) {
  Json jobs = Json::array();
  for (const auto& job : list.jobs) jobs.push_back(job.job.hex());
  return {{"jobs", jobs}, {"more", list.more}};
}

Json told_group(const Result<protocol::GroupStatus>& answer) {
  if (!answer.ok()) return refused(answer.refusal());
  const protocol::GroupStatus& group = answer.value();
  return {{"open", group.open},           {"succeeded", group.succeeded}, {"failed", group.failed},
          {"cancelled", group.cancelled}, {"expired", group.expired},     {"dead", group.dead}};
}

Json operate(Client& client, const std::string& name, const Json& call) {
  if (name == "status") return each<protocol::SystemStatus>(client.status(), told_status);
  if (name == "control") {
    return each<protocol::SystemStatus>(
        client.control(read<protocol::ControlAction>(call["action"]), read<protocol::ControlScope>(call["scope"]),
                       call.value("name", "")),
        told_status);
  }
  if (name == "list") {
    return each<protocol::JobList>(client.list(read<protocol::JobFilter>(call["filter"]), call.value("limit", 100u)),
                                   told_list);
  }
  if (name == "group") {
    const std::string tenant = call.value("tenant", ""), group = call["group"];
    return told_group(call.value("cancel", false) ? client.cancel_group(tenant, group) : client.group(tenant, group));
  }
  if (name == "purge") {
    const auto purged = client.purge(read<protocol::JobFilter>(call["filter"]));
    return purged.ok() ? Json{{"jobs", purged.value()}} : refused(purged.refusal());
  }
  check(name == "backup", "a call that is not known");
  return each<protocol::BackedUp>(client.backup(std::chrono::milliseconds(call["timeout_ms"].get<int>())),
                                  [](const protocol::BackedUp& done) -> Json {
                                    return {{"file", done.file}};
                                  });
}

Json run(Client& client, const Json& call) {
  const std::string name = call["call"];
  if (name == "generate") return generate(client, call);
  if (name == "submit") return submit(client, call);
  if (name == "attach") return attach(client, call);
  if (name == "get") return told(client.get(read<JobId>(call["job"])));
  if (name == "cancel") return told(client.cancel(read<JobId>(call["job"])));
  if (name == "requeue") return told(client.requeue(read<JobId>(call["job"])));
  if (name == "wait") {
    return told(client.wait(read<JobId>(call["job"]), std::chrono::milliseconds(call["timeout_ms"].get<int>())));
  }
  return operate(client, name, call);
}

// A job may be named by the result that tells its id: 2 is that of the third call, "2.1" its second outcome.
Json with_job(Json call, const Json& results) {
  const auto job = call.find("job");
  if (job == call.end() || job->is_object()) return call;
  const std::string name = job->is_string() ? job->get<std::string>() : job->dump();
  if (name.size() == 32) return call;
  const size_t dot = name.find('.');
  const Json& result = results.at(std::stoul(name.substr(0, dot)));
  *job = dot == name.npos ? result.at("job") : result.at("outcomes").at(std::stoul(name.substr(dot + 1))).at("job");
  return call;
}

Json vectors() {
  Json orders = Json::array();
  for (const int count : {2, 3, 8}) {
    std::vector<std::string> endpoints;
    for (int i = 0; i < count; ++i) endpoints.push_back("tcp://scheduler-" + std::to_string(i) + ":5555");
    for (const char* tenant : {"", "tenant"}) {
      for (const char* key : {"one", "two", "three", "order-2026-11-30", "0123456789abcdef0123456789abcdef"}) {
        orders.push_back({{"tenant", tenant},
                          {"key", key},
                          {"endpoints", endpoints},
                          {"order", client::scheduler_order(tenant, key, endpoints)}});
      }
    }
  }
  return {{"made_by", "conformance_driver --vectors"}, {"scheduler_orders", orders}};
}

}  // namespace
}  // namespace optserve::conformance

int main(int argc, char** argv) {
  using namespace optserve;
  using conformance::Json;
  if (argc == 2 && std::string(argv[1]) == "--vectors") {
    std::cout << conformance::vectors().dump(1) << "\n";
    return 0;
  }
  const Json input = Json::parse(std::string(std::istreambuf_iterator<char>(std::cin), {}));
  client::ClientOptions options;
  options.endpoints = input["endpoints"];
  options.timeout = std::chrono::milliseconds(input.value("timeout_ms", 10'000));
  client::Client client(options);
  Json results = Json::array();
  for (const Json& call : input["calls"]) {
    results.push_back(conformance::run(client, conformance::with_job(call, results)));
  }
  std::cout << results.dump() << "\n";
  return 0;
}
