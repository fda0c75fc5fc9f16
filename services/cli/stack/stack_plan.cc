#include "cli/stack/stack_plan.h"

#include <algorithm>
#include <filesystem>

#include "base/check.h"
#include "base/limits.h"
#include "checkpoint/manifest/layout.h"
#include "checkpoint/manifest/model_identity.h"
#include "cli/stack/stack_keys.h"
#include "model_spec/opt_config.h"

namespace optserve::cli {
namespace {

constexpr int kGroupsMax = 64;

std::string endpoint(int port) { return "tcp://127.0.0.1:" + std::to_string(port); }

Status check_model(StackOptions& options) {
  if (options.model.empty()) {
    return refuse(ErrorCode::kBadRequest, "model: expected the folder of a checkpoint written by 'optserve convert'");
  }
  // NAME=FOLDER, as the services have it; a folder may have "=" in its own name.
  const size_t equals = options.model.find('=');
  if (equals != std::string::npos && !std::filesystem::exists(options.model)) {
    const std::string name = options.model.substr(0, equals);
    if (!options.name.empty() && options.name != name) {
      return refuse(ErrorCode::kBadRequest, "model: has the name '" + name + "', but name is '" + options.name + "'");
    }
    options.name = name;
    options.model.erase(0, equals + 1);
  }
  const Result<checkpoint::ModelIdentity> identity = checkpoint::read_model_identity(options.model);
  if (!identity.ok()) return refuse(identity.refusal().code, "model: " + identity.refusal().message);
  const checkpoint::Manifest& manifest = identity.value().manifest;
  if (Status status = check_shards(options.model, checkpoint::shard_plan(manifest), options.world); !status.ok()) {
    return status;
  }
  if (identity.value().vocabulary_digest.empty()) options.tokenizers = 0;  // it serves token ids
  if (options.name.empty()) options.name = manifest.config.name;
  return ok_status();
}

void append(PlannedProcess& planned, std::initializer_list<std::string> arguments) {
  planned.arguments.insert(planned.arguments.end(), arguments);
}

// The keys of a process that connects to the scheduler.
void append_keys(PlannedProcess& planned, const StackOptions& options, const std::string& identity) {
  if (options.no_keys) return;
  const StackKeys keys(options.folder);
  append(planned, {"--secret-key", keys.secret(identity), "--server-key", keys.public_file("scheduler")});
}

// The arguments that every process has.
PlannedProcess process(const StackOptions& options, std::string name, std::string program, int http_port) {
  PlannedProcess planned{std::move(name), std::move(program), {}, http_port};
  if (planned.program == "optserve-converter") planned.arguments.push_back("serve");
  if (planned.program != "optserve-scheduler" && planned.program != "optserve-gateway") {
    append(planned, {"--name", planned.name});
  }
  planned.arguments.insert(planned.arguments.end(), {"--http-port", std::to_string(http_port), "--http-address",
                                                     "127.0.0.1", "--log-level", options.log_level});
  return planned;
}

}  // namespace

void add_options(ConfigParser& parser, StackOptions& options) {
  parser.add("model", options.model, "FOLDER or NAME=FOLDER of a sharded checkpoint, as 'optserve convert' writes it");
  parser.add("name", options.name, "Name that clients use for the model; by default the name in its manifest");
  parser.add("world", options.world, "Tensor-parallel size: number of processes that share one copy of the model")
      .range(1, limits::kWorldSizeMax);
  parser.add("workers", options.workers, "Number of worker groups, each with a copy of the model").range(1, kGroupsMax);
  parser.add("tokenizers", options.tokenizers, "Number of tokenizer processes").range(1, kGroupsMax);
  parser.add("device", options.device, "Device of the workers").choices({"cpu", "cuda"});
  parser.add("dir", options.folder, "Folder for logs, journal and state; created if missing");
  parser.add("converter-root", options.converter_root,
             "Also start a converter service that may read and write in this folder");
  parser
      .add("ports", options.ports,
           "fixed: 5555, 5556, 8000, and from 9400 on; auto: free ports, which DIR/stack.json tells")
      .choices({"fixed", "auto"});
  parser.add("http", options.api_port, "Port on which the gateway serves the HTTP API, with --ports fixed")
      .range(1, 65'535);
  parser.add("no-gateway", options.no_gateway, "Start no gateway: there is no HTTP API");
  parser.add("no-keys", options.no_keys,
             "Make and use no keys: every program of this machine may use the stack, as any tenant");
  parser.add("chat-template", options.chat_template,
             "How the gateway makes a prompt of a chat: plain, or a file (docs/http.md); without it chats are refused");
  parser.add("volatile", options.is_volatile, "Keep jobs in memory only, without a journal");
  parser.add("foreground", options.foreground, "Stay in the terminal; Ctrl-C stops the stack");
  parser.add("log-level", options.log_level, "trace, debug, info, warn, error or off");
  parser.add("ready-seconds", options.ready_seconds, "Time within which every process must be ready")
      .range(1, 24 * 3600);
  parser.add("drain-seconds", options.drain_seconds, "Time for running jobs to end when the stack stops")
      .range(0, 3600);
  parser.add("worker-option", options.worker_options,
             "Option of optserve-worker as NAME=VALUE, such as max-sequences=8; repeatable");
  parser.mark_rare({"tokenizers", "no-gateway", "no-keys", "volatile", "log-level", "ready-seconds", "drain-seconds"});
}

Status check_shards(const std::string& folder, const checkpoint::ShardPlan& plan, int world) {
  if (plan.shards % world == 0) return ok_status();
  const std::vector<int> legal = checkpoint::legal_shards(plan.config, plan.quantisation);
  std::string sizes;
  for (const int size : legal) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
  const bool can_have = std::ranges::find(legal, world) != legal.end();
  return refuse(ErrorCode::kBadRequest, "world: " + folder + " has " + std::to_string(plan.shards) +
                                            " shards, which cannot be shared by " + std::to_string(world) + " ranks; " +
                                            (can_have ? "convert it again with --shards " + std::to_string(world)
                                                      : "the model can be shared by " + sizes + " ranks"));
}

Status check_worker_options(const std::vector<std::string>& worker_options) {
  for (const std::string& option : worker_options) {
    if (option.find('=') == std::string::npos || option.starts_with('-')) {
      return refuse(ErrorCode::kBadRequest, "worker-option is '" + option + "', expected NAME=VALUE");
    }
  }
  return ok_status();
}

Status check_options(StackOptions& options) {
  if (Status status = check_worker_options(options.worker_options); !status.ok()) return status;
  if (Status status = check_model(options); !status.ok()) return status;
  options.model = std::filesystem::absolute(options.model).lexically_normal().string();
  options.folder = std::filesystem::absolute(options.folder).lexically_normal().string();
  if (!options.chat_template.empty() && options.chat_template != "plain") {
    options.chat_template = std::filesystem::absolute(options.chat_template).lexically_normal().string();
  }
  if (!options.converter_root.empty()) {
    if (!std::filesystem::is_directory(options.converter_root)) {
      return refuse(ErrorCode::kBadRequest, "converter-root: " + options.converter_root + " is not a folder");
    }
    options.converter_root = std::filesystem::canonical(options.converter_root).string();
  }
  return ok_status();
}

int http_ports_needed(const StackOptions& options) {
  const int converters = options.converter_root.empty() ? 0 : 1;
  const int gateways = options.no_gateway ? 0 : 1;
  return 1 + options.tokenizers + options.workers * (1 + options.world) + converters + gateways;
}

StackPlan plan_stack(const StackOptions& options, const StackPorts& ports) {
  StackPlan plan;
  plan.client_endpoint = endpoint(ports.clients);
  plan.service_endpoint = endpoint(ports.services);
  plan.ports = {ports.clients, ports.services};
  const StackKeys keys(options.folder);
  if (!options.no_keys) {
    plan.client_secret_key = keys.secret("client");
    plan.server_key = keys.public_file("scheduler");
  }
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
  if (!options.no_keys) {
    append(scheduler, {"--secret-key", keys.secret("scheduler"), "--allowed-keys", keys.allowed()});
  }
  plan.processes.push_back(std::move(scheduler));

  for (int i = 0; i < options.tokenizers; ++i) {
    const std::string name = options.tokenizers == 1 ? "tokenizer" : "tokenizer-" + std::to_string(i);
    plan.processes.push_back(process(options, name, "optserve-tokenizer", next_http++));
    append(plan.processes.back(), {"--scheduler", plan.service_endpoint, "--model", model});
    append_keys(plan.processes.back(), options, "tokenizer");
  }
  for (int i = 0; i < options.workers; ++i) {
    PlannedProcess worker = process(options, "worker-" + std::to_string(i), "optserve-worker", next_http++);
    append(worker, {"--scheduler", plan.service_endpoint, "--model", model, "--world", std::to_string(options.world),
                    "--device", options.device, "--drain-ms", drain_ms});
    append_keys(worker, options, "worker");
    for (const std::string& option : options.worker_options) append(worker, {"--" + option});
    plan.processes.push_back(std::move(worker));
    next_http += options.world;  // the ranks listen behind their supervisor
  }
  if (!options.converter_root.empty()) {
    plan.processes.push_back(process(options, "converter", "optserve-converter", next_http++));
    append(plan.processes.back(), {"--scheduler", plan.service_endpoint, "--root", options.converter_root});
    append_keys(plan.processes.back(), options, "converter");
  }
  if (!options.no_gateway) {
    const std::string address = "127.0.0.1:" + std::to_string(ports.api);
    plan.api_url = "http://" + address;
    plan.ports.push_back(ports.api);
    plan.processes.push_back(process(options, "gateway", "optserve-gateway", next_http++));
    append(plan.processes.back(), {"--scheduler", plan.client_endpoint, "--http", address, "--drain-ms", drain_ms,
                                   "--files", options.folder + "/files"});
    append_keys(plan.processes.back(), options, "gateway");
    if (options.tokenizers > 0) append(plan.processes.back(), {"--model", model});  // it has a vocabulary
    if (!options.chat_template.empty()) append(plan.processes.back(), {"--chat-template", options.chat_template});
  }
  return plan;
}

}  // namespace optserve::cli
