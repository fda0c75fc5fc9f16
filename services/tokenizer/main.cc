// optserve-tokenizer: turns text into ids and ids into text.
#include <cstdio>
#include <string>
#include <vector>

#include "base/address_check.h"
#include "base/config.h"
#include "base/exit_status.h"
#include "base/log.h"
#include "base/program.h"
#include "base/shutdown.h"
#include "confinement/program_cage.h"
#include "http/health_server.h"
#include "tokenizer/tokenizer_service.h"
#include "transport/scheduler_session.h"

namespace {

using namespace optserve;

constexpr seconds kDrainDeadline{5};

struct Options {
  CommonOptions common;
  std::string sandbox = "try";
  std::vector<std::string> schedulers = {"tcp://127.0.0.1:5556"};
  std::vector<std::string> models;  // NAME=FOLDER of a sharded checkpoint
  std::string name;                 // of this process for operators; empty: host and process id
  keys::ClientKeyOptions keys;
};

void add_options(ConfigParser& parser, Options& options) {
  parser
      .add("scheduler", options.schedulers,
           "Service endpoint of a scheduler; repeatable: the service registers with all of them")
      .separated_by_commas();
  parser.add("model", options.models, "NAME=FOLDER: the name clients use and a sharded checkpoint; repeatable")
      .separated_by_commas();
  parser.add(
      "name", options.name,
      "Name of this process in 'optserve status' and for 'optserve queue --service'; empty: host and process id");
  keys::add_options(parser, options.keys);
  add_common_options(parser, options.common);
  confinement::add_sandbox_option(parser, options.sandbox);
  parser.add_example("optserve-tokenizer --scheduler tcp://scheduler:5556 --model opt-125m=/models/opt-125m",
                     "serve the vocabulary of one model");
}

tokenizer::TextServer load_models(const Options& options) {
  auto models = model_text::load_served_models(options.models);
  if (models.empty()) throw ConfigurationError("model: expected at least one --model NAME=FOLDER");
  return tokenizer::TextServer(std::move(models));
}

void serve(const Options& options, std::shared_ptr<keys::ClientKeys> keys, metrics::Registry& metrics,
           metrics::Health& health) {
  tokenizer::TextServer texts = load_models(options);
  protocol::Register hello = transport::new_registration(options.name);
  const transport::SchedulerLinkOptions link = transport::link_options(hello, options.schedulers);
  tokenizer::TokenizerService service(std::move(texts), std::move(hello), link, metrics, health);
  transport::serve_scheduler(service, {options.schedulers, kDrainDeadline, {}, std::move(keys), options.keys.insecure},
                             metrics, health);
}

void run(const Options& options) {
  for (const std::string& scheduler : options.schedulers) {
    const Status status = check_address("scheduler", scheduler, AddressUse::kConnect);
    if (!status.ok()) throw ConfigurationError(status.refusal().message);
  }
  confinement::enter(confinement::kTokenizer, options.sandbox);
  metrics::Registry metrics({}, metrics::other_names(options.common.metrics_compat));
  const SystemClock clock;
  metrics::Health health(clock);
  health.stamp();
  const http::HealthServer http(options.common.http_address, options.common.http_port, metrics, health);
  log_info("listening", {{"http", options.common.http_address + ":" + std::to_string(http.port())}});
  serve(options, transport::load_keys(options.keys, options.schedulers), metrics, health);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ConfigParser parser("optserve-tokenizer", "Turns text into ids and ids into text for the scheduler.");
  parser.use_environment();
  add_options(parser, options);
  return run_service({argc, argv, "tokenizer", parser, options.common}, [&] {
    run(options);
    return kExitOk;
  });
}
