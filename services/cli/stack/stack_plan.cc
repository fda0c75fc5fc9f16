#include "cli/stack/stack_plan.h"

#include <algorithm>
#include <filesystem>

#include "base/check.h"
#include "base/format_names.h"
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
  // NAME=FOLDER, in the form of the services' options; the name of a folder may contain "=".
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

void append_passed(PlannedProcess& planned, const std::vector<std::string>& passed) {
  for (const std::string& option : passed) append(planned, {"--" + option});
}

// The program itself could only say that the option was given twice, and not by whom.
Status check_who_sets(const std::string& option, const std::vector<std::string>& passed, const std::string& program,
                      const StackPlan& plan) {
  for (const PlannedProcess& planned : plan.processes) {
    if (planned.program != program) continue;
    for (const std::string& one : passed) {
      const std::string name = one.substr(0, one.find('='));
      if (std::ranges::find(planned.arguments, "--" + name) == planned.arguments.end()) continue;
      return refuse(ErrorCode::kBadRequest, option + ": 'optserve up' itself tells " + program + " its " + name +
                                                "; 'optserve up --help' lists what it takes for that");
    }
  }
  return ok_status();
}

// The arguments that every process has.
PlannedProcess process(const StackOptions& options, std::string name, std::string program, int http_port) {
  PlannedProcess planned{std::move(name), std::move(program), {}, http_port};
  if (planned.program == "optserve-converter") planned.arguments.push_back("serve");
  if (planned.program != "optserve-scheduler" && planned.program != "optserve-gateway") {
    append(planned, {"--name", planned.name});
  }
  planned.arguments.insert(planned.arguments.end(),
                           {"--http-port", std::to_string(http_port), "--http-address", "127.0.0.1", "--log-level",
                            options.log_level, "--log-format", options.log_format});
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
  static constexpr auto kDtypes = with_words({"auto"}, kDtypeNames);
  parser
      .add("dtype", options.dtype, "Type of the workers' activations; auto: fp32 on the CPU, else that of the weights")
      .choices(kDtypes);
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
  parser.add("backup-folder", options.backup_folder,
             "Folder for copies of the journal, better on another disk; it must exist. Empty: no copies");
  parser.add("backup-seconds", options.backup_seconds, "Time between copies; 0: only by 'optserve journal backup'")
      .range(0, 1e9);
  parser.add("backups-kept", options.backups_kept, "Copies that are kept").range(1, 1e6);
  parser.add("journal-replica", options.journal_replica,
             "Folder on another disk, to which every commit of the journal is copied within about a second; it must "
             "exist. Empty: no replica");
  parser.add("foreground", options.foreground,
             "Stay in the terminal; Ctrl-C stops the stack, a second one does not wait for running jobs");
  parser.add("log-level", options.log_level, "Least severe level that is logged")
      .choices({"trace", "debug", "info", "warn", "error", "off"});
  parser.add("log-format", options.log_format, "Form of log lines").choices({"text", "json"});
  parser.add("ready-seconds", options.ready_seconds, "Time within which every process must be ready")
      .range(1, 24 * 3600);
  parser.add("drain-seconds", options.drain_seconds, "Time for running jobs to end when the stack stops")
      .range(0, 3600);
  parser.add("worker-option", options.worker_options,
             "Option of optserve-worker as NAME=VALUE, such as max-sequences=8; repeatable");
  parser.add("scheduler-option", options.scheduler_options,
             "Option of optserve-scheduler as NAME=VALUE, such as open-jobs-max=1000; repeatable");
  parser.add("gateway-option", options.gateway_options,
             "Option of optserve-gateway as NAME=VALUE, such as connections-max=100; repeatable");
  parser.mark_rare({"tokenizers", "no-gateway", "no-keys", "volatile", "backup-seconds", "backups-kept",
                    "journal-replica", "log-level", "log-format", "ready-seconds", "drain-seconds", "scheduler-option",
                    "gateway-option"});
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

Status check_passed_options(const std::string& option, const std::vector<std::string>& passed) {
  for (const std::string& one : passed) {
    if (one.find('=') == std::string::npos || one.starts_with('-')) {
      return refuse(ErrorCode::kBadRequest, option + " is '" + one + "', expected NAME=VALUE");
    }
  }
  return ok_status();
}

namespace {

Status check_folders(StackOptions& options) {
  for (auto [name, folder] :
       {std::pair{"converter-root", &options.converter_root}, std::pair{"backup-folder", &options.backup_folder},
        std::pair{"journal-replica", &options.journal_replica}}) {
    if (folder->empty()) continue;
    if (!std::filesystem::is_directory(*folder)) {
      return refuse(ErrorCode::kBadRequest, std::string(name) + ": " + *folder + " is not a folder");
    }
    *folder = std::filesystem::canonical(*folder).string();
  }
  if (!options.is_volatile) return ok_status();
  for (const auto& [name, folder] :
       {std::pair{"backup-folder", options.backup_folder}, std::pair{"journal-replica", options.journal_replica}}) {
    if (folder.empty()) continue;
    return refuse(ErrorCode::kBadRequest, std::string(name) + ": with --volatile there is no journal to copy");
  }
  return ok_status();
}

Status check_all_passed(const StackOptions& options) {
  const StackPlan plan = plan_stack(options, {});
  for (const auto& [name, passed, program] :
       {std::tuple{"worker-option", &options.worker_options, "optserve-worker"},
        std::tuple{"scheduler-option", &options.scheduler_options, "optserve-scheduler"},
        std::tuple{"gateway-option", &options.gateway_options, "optserve-gateway"}}) {
    if (Status status = check_passed_options(name, *passed); !status.ok()) return status;
    if (Status status = check_who_sets(name, *passed, program, plan); !status.ok()) return status;
  }
  return ok_status();
}

}  // namespace

Status check_options(StackOptions& options) {
  if (Status status = check_model(options); !status.ok()) return status;
  options.model = std::filesystem::absolute(options.model).lexically_normal().string();
  options.folder = std::filesystem::absolute(options.folder).lexically_normal().string();
  if (!options.chat_template.empty() && options.chat_template != "plain") {
    options.chat_template = std::filesystem::absolute(options.chat_template).lexically_normal().string();
  }
  if (Status status = check_folders(options); !status.ok()) return status;
  return check_all_passed(options);
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
  if (!options.backup_folder.empty()) {
    append(scheduler, {"--backup-folder", options.backup_folder, "--backup-seconds",
                       std::to_string(options.backup_seconds), "--backups-kept", std::to_string(options.backups_kept)});
  }
  if (!options.journal_replica.empty()) append(scheduler, {"--journal-replica", options.journal_replica});
  if (!options.no_keys) {
    append(scheduler, {"--secret-key", keys.secret("scheduler"), "--allowed-keys", keys.allowed()});
  }
  append_passed(scheduler, options.scheduler_options);
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
    if (options.dtype != "auto") append(worker, {"--dtype", options.dtype});
    append_passed(worker, options.worker_options);
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
    append_passed(plan.processes.back(), options.gateway_options);
  }
  return plan;
}

}  // namespace optserve::cli
