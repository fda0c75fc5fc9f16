#include "cli/commands/connection.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include "cli/commands/command.h"
#include "cli/stack/stack_folder.h"

namespace optserve::cli {
namespace {

constexpr const char* kDefaultEndpoint = "tcp://127.0.0.1:5555";
constexpr int kTimeoutMsMax = 24 * 3'600'000;

std::string find_endpoints(const ConnectionOptions& options) {
  if (!options.scheduler.empty()) return options.scheduler;
  if (options.folder.empty()) return kDefaultEndpoint;
  return value_or_fail(StackFolder(options.folder).read_state()).client_endpoint;
}

}  // namespace

void add_options(ConfigParser& parser, ConnectionOptions& options) {
  parser.add("scheduler", options.scheduler,
             "Address of the scheduler's client port, or several addresses separated by commas; by default that of "
             "the stack in --dir, otherwise tcp://127.0.0.1:5555");
  parser.add("dir", options.folder, "Folder of a local stack, as given to 'optserve up'");
  parser.add("timeout-ms", options.timeout_ms, "Time within which a request must be answered, retries included")
      .range(1, kTimeoutMsMax);
}

void fail(const Refusal& refusal) {
  throw CommandFailure{kExitRefused, std::string(error_code_name(refusal.code)) + ": " + refusal.message};
}

void report_refusal(const std::string& endpoint, const Refusal& refusal) {
  std::fprintf(stderr, "optserve: scheduler %s: %s: %s\n", endpoint.c_str(),
               std::string(error_code_name(refusal.code)).c_str(), refusal.message.c_str());
}

JobId parse_job(const std::string& text) {
  if (const std::optional<JobId> job = JobId::from_hex(text)) return *job;
  throw CommandFailure{kExitUsage, "job is '" + text + "', expected 32 lower-case hex digits"};
}

Connection Connection::open(const ConnectionOptions& options) {
  Connection connection;
  client::ClientOptions client_options;
  client_options.endpoints = find_endpoints(options);
  client_options.timeout = std::chrono::milliseconds(options.timeout_ms);
  connection.client_ = std::make_unique<Client>(client_options);
  connection.status_ = connection.client_->status();
  const auto& answers = connection.status_;
  if (std::none_of(answers.begin(), answers.end(), [](const auto& one) { return one.answer.ok(); }))
    throw CommandFailure{kExitUnreachable, "no scheduler answers at " + client_options.endpoints + " (" +
                                               answers.front().answer.refusal().message +
                                               "); 'optserve up' starts one"};
  return connection;
}

std::string Connection::choose_model(const std::string& wanted) const {
  if (!wanted.empty()) return wanted;
  std::set<std::string> served;
  for (const auto& [endpoint, status] : status_) {
    if (!status.ok()) continue;
    for (const protocol::ServiceStatus& service : status.value().services) {
      if (service.kind == "worker") served.insert(service.models.begin(), service.models.end());
    }
  }
  if (served.size() == 1) return *served.begin();
  std::string names;
  for (const std::string& name : served) names += (names.empty() ? "" : ", ") + name;
  throw CommandFailure{kExitRefused,
                       served.empty() ? "no worker serves a model yet; name the model with --model to wait for a worker"
                                      : "several models are served; choose one with --model: " + names};
}

}  // namespace optserve::cli
