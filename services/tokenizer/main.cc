// optserve-tokenizer: turns text into ids and ids into text.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/log.h"
#include "base/shutdown.h"
#include "tokenizer/tokenizer_service.h"
#include "transport/scheduler_session.h"

namespace {

using namespace optserve;

constexpr seconds kDrainDeadline{5};

struct Options {
  CommonOptions common;
  std::vector<std::string> schedulers = {"tcp://127.0.0.1:5556"};
  std::vector<std::string> models;  // NAME=FOLDER of a sharded checkpoint
};

void add_options(ConfigParser& parser, Options& options) {
  add_common_options(parser, options.common);
  parser.add("scheduler", options.schedulers,
             "Service endpoint of a scheduler; repeatable: the service registers with all of them");
  parser.add("model", options.models, "NAME=FOLDER: the name clients use and a sharded checkpoint; repeatable");
}

tokenizer::TextServer load_models(const Options& options) {
  std::vector<std::unique_ptr<tokenizer::ServedModel>> models;
  for (const std::string& name_and_folder : options.models) {
    auto model = tokenizer::load_served_model(name_and_folder);
    if (!model.ok()) throw Error("model: " + model.refusal().message);
    const protocol::ModelInfo& info = model.value()->info;
    log_info("model_loaded", {{"name", info.name}, {"vocabulary", info.vocabulary_digest}, {"context", info.context}});
    models.push_back(std::move(model).value());
  }
  if (models.empty()) throw Error("model: expected at least one --model NAME=FOLDER");
  return tokenizer::TextServer(std::move(models));
}

void serve(const Options& options, tokenizer::TextServer texts, metrics::Registry& metrics, metrics::Health& health) {
  protocol::Register hello = transport::new_registration();
  const transport::SchedulerLinkOptions link = transport::link_options(hello, options.schedulers);
  tokenizer::TokenizerService service(std::move(texts), std::move(hello), link, metrics, health);
  transport::serve_scheduler(service, {options.schedulers, kDrainDeadline, {}}, metrics, health);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ConfigParser parser("optserve-tokenizer", "Turns text into ids and ids into text for the scheduler.");
  add_options(parser, options);
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  try {
    install_shutdown_signals();
    start_logging("tokenizer", options.common, parser);
    metrics::Registry metrics;
    const SystemClock clock;
    metrics::Health health(clock);
    health.stamp();
    const metrics::HttpServer http(options.common.http_address, options.common.http_port, metrics, health);
    log_info("listening", {{"http", options.common.http_address + ":" + std::to_string(http.port())}});
    serve(options, load_models(options), metrics, health);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "optserve-tokenizer: %s\n", error.what());
    log_error("stopped", {{"cause", error.what()}});
    return 1;
  }
}
