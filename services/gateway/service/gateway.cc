#include "gateway/service/gateway.h"

#include <algorithm>
#include <set>
#include <thread>

#include "base/build_info.h"
#include "base/log.h"
#include "base/program.h"
#include "gateway/service/answers.h"
#include "gateway/service/completion_call.h"
#include "gateway/service/request_hooks.h"
#include "gateway/service/routes.h"
#include "http/health_server.h"
#include "http_api/openai/json_text.h"
#include "http_api/openapi/openapi.h"
#include "http_api/tokenize/tokenize.h"

namespace optserve::gateway {
namespace {

constexpr milliseconds kTick{1'000};
constexpr milliseconds kDrainStep{100};
constexpr milliseconds kFarewell{2'000};  // for the last answers to clients, and cancels to schedulers

using ExchangePtr = std::shared_ptr<http::Exchange>;

http::ServerOptions server_options(const GatewayOptions& options, metrics::Registry* registry) {
  Result<ListenAddress> where = parse_listen_address(options.http);
  if (!where.ok()) throw ConfigurationError(where.refusal().message);
  const bool has_keys = !options.keys.empty() || !options.key_lines.empty();
  if (!has_keys && !options.insecure && !is_loopback(where.value().address)) {
    throw ConfigurationError("http is " + options.http +
                             ", where other machines may reach it, and there are no keys: make one with "
                             "`optserve-gateway new-key NAME >> FILE` and give --keys FILE, or say --insecure");
  }
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    throw ConfigurationError("expected both tls-certificate and tls-key, or none of them");
  }
  http::ServerOptions server{.address = where.value().address,
                             .port = where.value().port,
                             .certificate_file = options.tls_certificate,
                             .key_file = options.tls_key,
                             .registry = registry};
  server.limits.connections_max = static_cast<size_t>(options.connections_max);
  return server;
}

client::ClientOptions client_options(const GatewayOptions& options) {
  client::ClientOptions settings;
  settings.endpoints.clear();
  for (const std::string& endpoint : options.schedulers) {
    settings.endpoints += (settings.endpoints.empty() ? "" : ",") + endpoint;
  }
  settings.secret_key = options.scheduler_keys.secret_key;
  settings.server_keys.clear();
  for (const std::string& key : options.scheduler_keys.server_keys) {
    settings.server_keys += (settings.server_keys.empty() ? "" : ",") + key;
  }
  settings.insecure = options.insecure;
  return settings;
}

std::unique_ptr<client::AsyncClient> make_client(const GatewayOptions& options) {
  client::ClientOptions settings = client_options(options);
  settings.waits_while_busy = false;  // the refusal goes to the caller, who may retry
  return std::make_unique<client::AsyncClient>(settings);
}

std::unique_ptr<BatchService> make_batch_service(const GatewayOptions& options, BatchTexts texts, const Clock& clock) {
  if (options.files.empty()) return nullptr;
  return std::make_unique<BatchService>(
      BatchService::Options{.folder = options.files,
                            .bytes_max = static_cast<uint64_t>(options.files_bytes_max),
                            .keep_seconds = options.files_days * 86'400,
                            .client = client_options(options)},
      std::move(texts), clock);
}

// The models of all worker groups.
std::vector<std::string> served_models(const client::Answers<protocol::SystemStatus>& answers) {
  std::set<std::string> names;
  for (const auto& [endpoint, answer] : answers) {
    if (!answer.ok()) continue;
    for (const protocol::ServiceStatus& service : answer.value().services) {
      if (service.kind == "worker") names.insert(service.models.begin(), service.models.end());
    }
  }
  return {names.begin(), names.end()};
}

// None of which is an answer.
std::string why_silent(const client::Answers<protocol::SystemStatus>& answers) {
  std::string why = "no scheduler answers";
  for (const auto& one : answers) why += "; " + one.answer.refusal().message;
  return why;
}

void log_news(const SchedulerWatch::News& news) {
  const auto silent_s = std::chrono::duration_cast<seconds>(news.silence).count();
  if (news.is_reachable) {
    log_info("scheduler_reachable", {{"endpoint", news.endpoint}, {"silent_s", silent_s}});
  } else {
    log_warn("scheduler_unreachable", {{"endpoint", news.endpoint}, {"silent_s", silent_s}, {"why", news.why}});
  }
}

http::Answer answer_of(http_api::Parsed<std::string> body) {
  return body.ok() ? json_answer(std::move(body).value()) : error_answer(body.error());
}

}  // namespace

Gateway::Gateway(const GatewayOptions& options, std::unique_ptr<http_api::Models> models,
                 std::unique_ptr<http_api::Models> batch_models, metrics::Registry& registry, metrics::Health& health,
                 const Clock& clock)
    : health_(health),
      clock_(clock),
      system_(registry),
      models_(std::move(models)),
      chat_template_(options.chat_template.empty() ? std::optional<http_api::ChatTemplate>()
                                                   : http_api::ChatTemplate::load(options.chat_template)),
      key_store_(options.keys, options.key_lines),
      access_(key_store_.has_keys(), !options.metrics_need_key),
      batch_service_(
          make_batch_service(options, {std::move(batch_models), chat_template_ ? &*chat_template_ : nullptr}, clock)),
      server_(server_options(options, &registry), clock, request_hooks(options.cors_origins, access_, clock)),
      client_(make_client(options)) {
  access_.set_keys(key_store_.keys());
  add_routes(registry);
  server_.post([this] { tick(); });
  server_.start();
}

Gateway::~Gateway() {
  server_.stop();
  batch_service_.reset();  // its threads hand answers to the server
  client_.reset();
}

void Gateway::add_routes(const metrics::Registry& registry) {
  const GatewayParts parts{server_, *client_, *models_,      calls_,
                           access_, clock_,   open_cancels_, chat_template_ ? &*chat_template_ : nullptr};
  http::add_health_routes(server_, registry, health_);
  server_.route("GET", "/health", [this](const ExchangePtr& exchange) {
    if (health_.ready.load()) return exchange->answer({.body = ""});
    exchange->answer(error_answer(http_api::unavailable("not ready: " + health_.problem())));
  });
  server_.route("GET", "/version", [](const ExchangePtr& exchange) {
    exchange->answer(json_answer("{\"version\":" + http_api::json_string(build_version()) + "}"));
  });
  server_.route("GET", "/openapi.json", [this](const ExchangePtr& exchange) {
    exchange->answer(json_answer(http_api::openapi_document(server_.route_names(), build_version())));
  });
  server_.route("GET", "/v1/models",
                [this](const ExchangePtr& exchange) { exchange->answer(json_answer(models_->list_body())); });
  server_.route("GET", "/v1/models/{id...}", [this](const ExchangePtr& exchange) {
    exchange->answer(answer_of(models_->card_body(exchange->request().parameter("id"))));
  });
  server_.route("POST", "/tokenize",
                [this](const ExchangePtr& exchange) {
                  exchange->answer(answer_of(http_api::tokenize(exchange->request().body, *models_)));
                },
                {.body_bytes_max = kCompletionBodyBytesMax});
  server_.route("POST", "/detokenize",
                [this](const ExchangePtr& exchange) {
                  exchange->answer(answer_of(http_api::detokenize(exchange->request().body, *models_)));
                },
                {.body_bytes_max = kCompletionBodyBytesMax});
  server_.route("GET", "/tokenizer_info", [this](const ExchangePtr& exchange) {
    const std::string* model = exchange->request().query("model");
    exchange->answer(answer_of(http_api::tokenizer_info(model == nullptr ? "" : *model, *models_)));
  });
  server_.route("POST", "/v1/completions", [parts](const ExchangePtr& exchange) { serve_completion(parts, exchange); },
                {.body_bytes_max = kCompletionBodyBytesMax});
  for (const char* path : {"/completions", "/generate", "/engines/{name}/completions", "/v1/engines/{name}/completions",
                           "/v2/engines/{name}/completions"}) {
    server_.route("POST", path, [parts](const ExchangePtr& exchange) { serve_metaseq(parts, exchange); },
                  {.body_bytes_max = kCompletionBodyBytesMax});
  }
  add_chat_routes(parts);
  add_response_routes(parts);
  add_ollama_routes(parts);
  add_job_routes(parts);
  batch_service_ ? batch_service_->add_routes(parts) : add_routes_without_batches(parts);
  add_record_route(parts);
  add_page_routes(server_);
}

// Every second: the life sign, the calls that wait, and what the schedulers serve.
void Gateway::tick() {
  health_.stamp();
  if (key_store_.refresh()) access_.set_keys(key_store_.keys());
  calls_.tick(clock_.now());
  server_.call_after(kTick, [this] { tick(); });
  if (std::exchange(is_status_asked_, true)) return;
  client_->status(
      [this](client::Answers<protocol::SystemStatus> answers) {
        server_.post([this, answers = std::move(answers)] { on_status(answers); });
      },
      kStatusWithin);
}

void Gateway::on_status(const client::Answers<protocol::SystemStatus>& answers) {
  is_status_asked_ = false;
  system_.update(answers);
  for (const SchedulerWatch::News& one : watch_.update(answers, clock_.now())) log_news(one);
  const bool is_answered = std::ranges::any_of(answers, [](const auto& one) { return one.answer.ok(); });
  if (is_answered) models_->set_served(served_models(answers));
  if (!is_draining_) health_.set_problem(is_answered ? "" : why_silent(answers));
  health_.started = health_.started.load() || is_answered;
  health_.ready = is_answered && !is_draining_;
}

void Gateway::drain(milliseconds limit, const std::function<bool()>& is_forced) {
  is_draining_ = true;
  health_.ready = false;
  health_.set_problem("draining");
  const Instant until = clock_.now() + limit;
  bool is_done = false;
  do {
    is_done = server_.drain(kDrainStep);
  } while (!is_done && !is_forced() && clock_.now() < until);
  if (is_done) return;
  server_.post([this] { calls_.give_up_all(http_api::unavailable("the gateway is stopping", 1'000)); });
  server_.drain(kFarewell);
  const Instant farewell = clock_.now() + kFarewell;
  while (open_cancels_ > 0 && clock_.now() < farewell) std::this_thread::sleep_for(milliseconds(5));
}

}  // namespace optserve::gateway
