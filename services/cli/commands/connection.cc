#include "cli/commands/connection.h"

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "base/address_check.h"
#include "base/clock.h"
#include "cli/commands/command.h"
#include "cli/stack/stack_folder.h"
#include "cli/text/operator_text.h"
#include "client/scheduler_choice.h"
#include "transport/reachability.h"

namespace optserve::cli {
namespace {

constexpr const char* kDefaultEndpoint = "tcp://127.0.0.1:5555";
constexpr int kTimeoutMsMax = 24 * 3'600'000;
constexpr size_t kIdDigits = 32;
constexpr size_t kJobsSearched = 1'000'000;
constexpr milliseconds kStartGrace{1'000};
constexpr milliseconds kStartPoll{100};
constexpr milliseconds kModelPoll{200};
constexpr seconds kNoteAfter{2};
constexpr seconds kConnectLimit{2};

// The stack that the command is about, if it is about one.
std::optional<StackState> find_stack(const ConnectionOptions& options) {
  if (!options.folder.empty()) return value_or_fail(StackFolder(options.folder).read_state());
  // A stack that was started here with the default folder may have other ports than the default ones.
  const StackFolder here(kDefaultStackFolder);
  if (const auto supervisor = here.read_pid(); !supervisor || !is_alive(*supervisor)) return std::nullopt;
  const auto state = here.read_state();
  return state.ok() ? std::optional(state.value()) : std::nullopt;
}

// This comes before the checks of keys and names, whose messages would not say that the address itself is wrong.
void check_addresses(const std::string& endpoints) {
  const auto addresses = client::split_endpoints(endpoints);
  if (!addresses.ok()) throw CommandFailure{kExitUsage, addresses.refusal().message, "bad_request"};
  for (const std::string& address : addresses.value()) {
    const Status status = check_address("scheduler", address, AddressUse::kConnect);
    if (!status.ok()) throw CommandFailure{kExitUsage, status.refusal().message, "bad_request"};
  }
}

// Sets where the schedulers are, and the keys for them.
void set_schedulers(client::ClientOptions& client, const ConnectionOptions& options) {
  keys::check_command_line();
  const bool looks_for_stack = options.scheduler.empty() || !options.folder.empty();
  const std::optional<StackState> stack = looks_for_stack ? find_stack(options) : std::nullopt;
  client.endpoints = options.scheduler;
  if (!client.endpoints.empty()) check_addresses(client.endpoints);
  if (client.endpoints.empty()) client.endpoints = stack ? stack->client_endpoint : kDefaultEndpoint;
  client.secret_key = options.keys.secret_key;
  for (const std::string& key : options.keys.server_keys) {
    client.server_keys += (client.server_keys.empty() ? "" : ",") + key;
  }
  client.insecure = options.keys.insecure;
  const bool has_keys = !client.secret_key.empty() || !client.server_keys.empty();
  if (has_keys || !stack) return;
  client.secret_key = stack->client_secret_key;
  client.server_keys = stack->server_key;
}

}  // namespace

void add_options(ConfigParser& parser, ConnectionOptions& options) {
  parser.begin_group("Connection");
  parser.add("scheduler", options.scheduler,
             "Address of the scheduler's client port, or several addresses separated by commas; by default that of "
             "the stack in --dir, or in ./optserve-run if one runs there, otherwise tcp://127.0.0.1:5555");
  parser.add("dir", options.folder, "Folder of a local stack, as given to 'optserve up'");
  parser.add("timeout-ms", options.timeout_ms, "Time within which a request must be answered, retries included")
      .range(1, kTimeoutMsMax);
  keys::add_connection_options(parser, options.keys);
  parser.add("insecure", options.keys.insecure, "Speak to schedulers on other machines without keys");
  parser.mark_rare({"timeout-ms", "secret-key", "server-key", "insecure"});
  parser.begin_group("Options");
}

void add_patience_option(ConfigParser& parser, ConnectionOptions& options) {
  parser.begin_group("Connection");
  parser
      .add("patience-seconds", options.patience_seconds,
           "How long to wait for a scheduler that has stopped answering while the job runs")
      .range(1, 30 * 24 * 3600);
  parser.mark_rare({"patience-seconds"});
  parser.begin_group("Options");
}

void fail(const Refusal& refusal) {
  throw CommandFailure{kExitFailed, std::string(error_code_name(refusal.code)) + ": " + refusal.message,
                       std::string(error_code_name(refusal.code))};
}

void report_refusal(const std::string& endpoint, const Refusal& refusal) {
  std::fprintf(stderr, "optserve: scheduler %s: %s: %s\n", endpoint.c_str(),
               std::string(error_code_name(refusal.code)).c_str(), refusal.message.c_str());
}

void check_job(const std::string& text) {
  const bool is_hex = text.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (is_hex && text.size() >= kJobPrefixMin && text.size() <= kIdDigits) return;
  throw CommandFailure{kExitUsage, "job is '" + text +
                                       "', expected 32 lower-case hex digits, or the first of them, at least " +
                                       std::to_string(kJobPrefixMin)};
}

JobId find_job(Client& client, const std::string& text) {
  if (const std::optional<JobId> job = JobId::from_hex(text)) return *job;
  check_job(text);
  std::vector<JobId> found;
  for (const protocol::JobSummary& job : list_jobs(client, {}, kJobsSearched).jobs) {
    if (job.job.hex().starts_with(text)) found.push_back(job.job);
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) fail(refuse(ErrorCode::kNotFound, "no job's id begins with " + text));
  throw CommandFailure{kExitFailed,
                       std::to_string(found.size()) + " jobs have ids that begin with " + text + ": " + found[0].hex() +
                           ", " + found[1].hex() + (found.size() > 2 ? ", ..." : ""),
                       "bad_request"};
}

JobId find_key(Client& client, const std::string& tenant, const std::string& key) {
  protocol::JobFilter filter;
  filter.tenant = tenant;
  std::optional<JobId> newest;
  for (const protocol::JobSummary& job : list_jobs(client, filter, kJobsSearched).jobs) {
    if (job.key == key) newest = job.job;  // the list is in the order of acceptance
  }
  if (!newest) {
    fail(refuse(ErrorCode::kNotFound, "no job " + (tenant.empty() ? std::string() : "of tenant '" + tenant + "' ") +
                                          "has the key '" + key + "'"));
  }
  return *newest;
}

namespace {

// Says on standard error what the command is waiting for, if the wait takes so long that people begin to wonder.
class WaitingNote {
 public:
  WaitingNote(std::string endpoints, milliseconds timeout)
      : thread_([endpoints = std::move(endpoints), timeout](const std::stop_token& ended) {
          std::mutex mutex;
          std::unique_lock lock(mutex);
          if (std::condition_variable_any().wait_for(lock, ended, kNoteAfter, [&] { return ended.stop_requested(); })) {
            return;
          }
          std::fprintf(stderr, "optserve: waiting for an answer from %s, for %.3g s in all\n", endpoints.c_str(),
                       std::chrono::duration<double>(timeout).count());
        }) {}

 private:
  std::jthread thread_;
};

// Waits a moment for a scheduler that is about to start. Throws CommandFailure if nobody listens at any address, or
// there is no such name: retrying until the timeout would only hide that. If the network or its name server is silent,
// so that this is not certain, returns why no scheduler can be reached; returns an empty text if one can.
std::string check_that_somebody_listens(const std::string& endpoints, milliseconds timeout) {
  const auto addresses = client::split_endpoints(endpoints);
  if (!addresses.ok()) return "";  // the client says what is wrong
  const SystemClock clock;
  const Instant until = clock.now() + std::min<milliseconds>(timeout, kStartGrace);
  std::string why;
  while (true) {
    why.clear();
    bool is_certain = true;
    for (const std::string& address : addresses.value()) {
      const transport::Reachability found = transport::look_at(address, kConnectLimit);
      if (found.is_reachable) return "";
      is_certain = is_certain && found.is_refused;
      why += (why.empty() ? "" : "; ") + (addresses.value().size() > 1 ? address + ": " : "") + found.why;
    }
    if (!is_certain) return why;
    if (clock.now() >= until) break;
    std::this_thread::sleep_for(kStartPoll);
  }
  throw CommandFailure{kExitUnreachable,
                       "no scheduler answers at " + endpoints + ": " + why + "; 'optserve up' starts one",
                       "unavailable"};
}

bool answers(const Answers<protocol::SystemStatus>& all) {
  return std::any_of(all.begin(), all.end(), [](const auto& one) { return one.answer.ok(); });
}

std::set<std::string> served_models(const Answers<protocol::SystemStatus>& all) {
  std::set<std::string> served;
  for (const auto& [endpoint, status] : all) {
    if (!status.ok()) continue;
    for (const protocol::ServiceStatus& service : status.value().services) {
      if (service.kind == "worker") served.insert(service.models.begin(), service.models.end());
    }
  }
  return served;
}

}  // namespace

Connection Connection::open(const ConnectionOptions& options) {
  Connection connection;
  client::ClientOptions& client_options = connection.client_options_;
  set_schedulers(client_options, options);
  client_options.timeout = connection.timeout_ = std::chrono::milliseconds(options.timeout_ms);
  std::optional<WaitingNote> note(std::in_place, client_options.endpoints, connection.timeout_);
  const std::string silence = check_that_somebody_listens(client_options.endpoints, connection.timeout_);
  connection.client_ = std::make_unique<Client>(client_options);
  connection.status_ = connection.client_->status();
  note.reset();
  if (!answers(connection.status_)) {
    const bool has_keys = !client_options.secret_key.empty();
    std::string why =
        "something accepts connections there, but not as the port of a scheduler for clients, which is 5555 "
        "by default";
    if (!has_keys) why += "; or it wants keys (--secret-key and --server-key)";
    if (!silence.empty()) why = silence;
    for (const auto& [endpoint, answer] : connection.status_) {  // a scheduler that refuses our key says more
      if (answer.refusal().message.find("does not let us in") != std::string::npos) why = answer.refusal().message;
    }
    throw CommandFailure{kExitUnreachable,
                         "no scheduler answers at " + client_options.endpoints + " within " +
                             std::to_string(options.timeout_ms) + " ms: " + why,
                         "unavailable"};
  }
  return connection;
}

std::string Connection::choose_model(const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  const SystemClock clock;
  const Instant until = clock.now() + timeout_;
  std::set<std::string> served = served_models(status_);
  while (served.empty() && clock.now() < until) {
    std::this_thread::sleep_for(kModelPoll);
    status_ = client_->status();
    served = served_models(status_);
  }
  if (served.size() == 1) return *served.begin();
  std::string names;
  for (const std::string& name : served) names += (names.empty() ? "" : ", ") + name;
  throw CommandFailure{kExitFailed,
                       served.empty() ? "no worker has served a model within " + std::to_string(timeout_.count()) +
                                            " ms; name the model with --model to queue the job all the same"
                                      : "several models are served; choose one with --model: " + names,
                       "unknown_model"};
}

}  // namespace optserve::cli
