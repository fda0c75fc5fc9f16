#include "cli/stack/stack_plan.h"

#include <filesystem>

#include "base/check.h"
#include "base/limits.h"
#include "checkpoint/manifest/model_identity.h"
#include "model_spec/opt_config.h"

namespace optserve::cli {
namespace {

constexpr int kGroupsMax = 64;

std::string endpoint(int port) { return "tcp://127.0.0.1:" + std::to_string(port); }

Status check_range(const char* option, int value, int min, int max) {
  if (value >= min && value <= max) return ok_status();
  return refuse(ErrorCode::kBadRequest, std::string(option) + ": expected " + std::to_string(min) + " to " +
                                            std::to_string(max) + ", found " + std::to_string(value));
}

Status check_choice(const char* option, const std::string& value, const std::string& a, const std::string& b) {
  if (value == a || value == b) return ok_status();
  return refuse(ErrorCode::kBadRequest,
                std::string(option) + ": expected " + a + " or " + b + ", found '" + value + "'");
}

Status check_model(StackOptions& options) {
  if (options.model.empty())
    return refuse(ErrorCode::kBadRequest, "model: expected the folder of a checkpoint written by 'optserve convert'");
  const Result<checkpoint::ModelIdentity> identity = checkpoint::read_model_identity(options.model);
  if (!identity.ok()) return refuse(identity.refusal().code, "model: " + identity.refusal().message);
  const checkpoint::Manifest& manifest = identity.value().manifest;
  if (manifest.shards % options.world != 0)
    return refuse(ErrorCode::kBadRequest, "world: " + options.model + " has " + std::to_string(manifest.shards) +
                                              " shards, which cannot be shared by " + std::to_string(options.world) +
                                              " ranks; convert it again with --shards " +
                                              std::to_string(options.world));
  if (identity.value().vocabulary_digest.empty())
    return refuse(ErrorCode::kBadRequest, "model: " + options.model + " was written without a tokenizer");
  if (options.name.empty()) options.name = manifest.config.name;
  return ok_status();
}

// The arguments that every process has.
PlannedProcess process(const StackOptions& options, std::string name, std::string program, int http_port) {
  PlannedProcess planned{std::move(name), std::move(program), {}, http_port};
  if (planned.program == "optserve-converter") planned.arguments.push_back("serve");
  planned.arguments.insert(planned.arguments.end(), {"--http-port", std::to_string(http_port), "--http-address",
                                                     "127.0.0.1", "--log-level", options.log_level});
  return planned;
}

void append(PlannedProcess& planned, std::initializer_list<std::string> arguments) {
  planned.arguments.insert(planned.arguments.end(), arguments);
}

}  // namespace

void add_options(ConfigParser& parser, StackOptions& options) {
  parser.add("model", options.model, "Folder of a sharded checkpoint, as 'optserve convert' writes it");
  parser.add("name", options.name, "Name that clients use for the model; by default the one in its manifest");
  parser.add("world", options.world, "Tensor-parallel size: processes that share one copy of the model");
  parser.add("workers", options.workers, "Worker groups, each with a copy of the model");
  parser.add("tokenizers", options.tokenizers, "Tokenizer processes");
  parser.add("device", options.device, "cpu or cuda");
  parser.add("dir", options.folder, "Folder for logs, journal and state; created if missing");
  parser.add("converter-root", options.converter_root,
             "Also start a converter that may read and write below this folder");
  parser.add("ports", options.ports, "fixed: 5555, 5556 and 9400 on; auto: free ones, recorded in DIR/stack.json");
  parser.add("volatile", options.is_volatile, "Keep jobs in memory only");
  parser.add("foreground", options.foreground, "Stay in the terminal; Ctrl-C stops the stack");
  parser.add("log-level", options.log_level, "trace, debug, info, warn, error or off");
  parser.add("ready-seconds", options.ready_seconds, "Time until every process must be ready");
  parser.add("drain-seconds", options.drain_seconds, "Time that running jobs get when the stack stops");
  parser.add("worker-option", options.worker_options, "NAME=VALUE of optserve-worker, repeatable: max-sequences=8");
}

Status check_options(StackOptions& options) {
  for (const Status& status :
       {check_range("world", options.world, 1, limits::kWorldSizeMax),
        check_range("workers", options.workers, 1, kGroupsMax),
        check_range("tokenizers", options.tokenizers, 1, kGroupsMax),
        check_range("ready-seconds", options.ready_seconds, 1, 24 * 3600),
        check_range("drain-seconds", options.drain_seconds, 0, 3600),
        check_choice("device", options.device, "cpu", "cuda"), check_choice("ports", options.ports, "fixed", "auto")}) {
    if (!status.ok()) return status;
  }
  for (const std::string& option : options.worker_options) {
    if (option.find('=') == std::string::npos || option.starts_with('-'))
      return refuse(ErrorCode::kBadRequest, "worker-option: expected NAME=VALUE, found '" + option + "'");
  }
  if (Status status = check_model(options); !status.ok()) return status;
  options.model = std::filesystem::absolute(options.model).lexically_normal().string();
  options.folder = std::filesystem::absolute(options.folder).lexically_normal().string();
  if (!options.converter_root.empty()) {
    if (!std::filesystem::is_directory(options.converter_root))
      return refuse(ErrorCode::kBadRequest, "converter-root: " + options.converter_root + " is not a folder");
    options.converter_root = std::filesystem::canonical(options.converter_root).string();
  }
  return ok_status();
}

int http_ports_needed(const StackOptions& options) {
  const int converters = options.converter_root.empty() ? 0 : 1;
  return 1 + options.tokenizers + options.workers * (1 + options.world) + converters;
}

StackPlan plan_stack(const StackOptions& options, const StackPorts& ports) {
  StackPlan plan{endpoint(ports.clients), endpoint(ports.services), {ports.clients, ports.services}, {}};
  for (int i = 0; i < http_ports_needed(options); ++i) plan.ports.push_back(ports.first_http + i);
  int next_http = ports.first_http;
  const std::string drain_ms = std::to_string(options.drain_seconds * 1000);
  const std::string model = options.name + "=" + options.model;

  PlannedProcess scheduler = process(options, "scheduler", "optserve-scheduler", next_http++);
  append(scheduler, {"--bind-clients", plan.client_endpoint, "--bind-services", plan.service_endpoint,
                     "--drain-seconds", std::to_string(options.drain_seconds)});
  if (options.is_volatile) {
    append(scheduler, {"--volatile"});
  } else {
    append(scheduler, {"--journal", options.folder + "/journal.db"});
  }
  plan.processes.push_back(std::move(scheduler));

  for (int i = 0; i < options.tokenizers; ++i) {
    const std::string name = options.tokenizers == 1 ? "tokenizer" : "tokenizer-" + std::to_string(i);
    plan.processes.push_back(process(options, name, "optserve-tokenizer", next_http++));
    append(plan.processes.back(), {"--scheduler", plan.service_endpoint, "--model", model});
  }
  for (int i = 0; i < options.workers; ++i) {
    PlannedProcess worker = process(options, "worker-" + std::to_string(i), "optserve-worker", next_http++);
    append(worker, {"--scheduler", plan.service_endpoint, "--model", model, "--world", std::to_string(options.world),
                    "--device", options.device, "--drain-ms", drain_ms});
    for (const std::string& option : options.worker_options) append(worker, {"--" + option});
    plan.processes.push_back(std::move(worker));
    next_http += options.world;  // the ranks listen behind their supervisor
  }
  if (!options.converter_root.empty()) {
    plan.processes.push_back(process(options, "converter", "optserve-converter", next_http++));
    append(plan.processes.back(), {"--scheduler", plan.service_endpoint, "--root", options.converter_root});
  }
  return plan;
}

}  // namespace optserve::cli
