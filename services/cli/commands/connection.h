// The connection of a command to the schedulers, and what it does with their answers.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/config.h"
#include "base/error.h"
#include "cli/commands/command.h"
#include "client/client.h"
#include "keys/key_options.h"

namespace optserve::cli {

using client::Answers;
using client::Client;

struct ConnectionOptions {
  std::string scheduler;    // addresses; empty: that of the stack in `folder`, or the default
  std::string folder;       // of a local stack; may be empty
  int timeout_ms = 10'000;  // of one request, retries included
  int patience_seconds = 120;
  keys::ClientKeyOptions keys;  // empty: those of the stack, or of the environment
  // How long a command that waits for a job lets the scheduler be unreachable.
  std::chrono::seconds patience() const { return std::chrono::seconds(patience_seconds); }
};
void add_options(ConfigParser& parser, ConnectionOptions& options);
// For commands that wait for jobs.
void add_patience_option(ConfigParser& parser, ConnectionOptions& options);

// A client of schedulers of which at least one has answered.
class Connection {
 public:
  // Asks the schedulers for their status first, to tell unreachable schedulers from those that refuse. Throws
  // CommandFailure (kExitUnreachable) if none answers; soon, if nobody listens at any of the addresses.
  static Connection open(const ConnectionOptions& options);

  Client& client() { return *client_; }
  // For another client of the same schedulers.
  const client::ClientOptions& client_options() const { return client_options_; }
  const Answers<protocol::SystemStatus>& status() const { return status_; }
  // `wanted`, or the one model that is served. If there is none, waits for one until the timeout is over, since workers
  // register a moment after a scheduler has started. Throws CommandFailure when there are none or several.
  std::string choose_model(const std::string& wanted);

 private:
  Connection() = default;
  client::ClientOptions client_options_;
  std::unique_ptr<Client> client_;
  Answers<protocol::SystemStatus> status_;
  std::chrono::milliseconds timeout_{};
};

// The value, or a CommandFailure with the refusal's code and message.
template <class T>
T value_or_fail(Result<T> result);
[[noreturn]] void fail(const Refusal& refusal);

// Prints a line to standard error for each scheduler that refused. Returns kExitOk if none did, else kExitFailed.
template <class T>
int report_refusals(const Answers<T>& answers);
void report_refusal(const std::string& endpoint, const Refusal& refusal);

// Checks that a word of the command line is a job id, or the beginning of one with at least kJobPrefixMin digits.
// Throws CommandFailure (kExitUsage) for other text.
inline constexpr size_t kJobPrefixMin = 4;
void check_job(const std::string& text);
// The job with this id, or the only one whose id begins with it. Throws CommandFailure if there is none or several.
JobId find_job(Client& client, const std::string& text);
// The newest job with this key. Throws CommandFailure if there is none.
JobId find_key(Client& client, const std::string& tenant, const std::string& key);

template <class T>
int report_refusals(const Answers<T>& answers) {
  int exit_status = kExitOk;
  for (const auto& [endpoint, answer] : answers) {
    if (answer.ok()) continue;
    report_refusal(endpoint, answer.refusal());
    exit_status = kExitFailed;
  }
  return exit_status;
}

template <class T>
T value_or_fail(Result<T> result) {
  if (!result.ok()) fail(result.refusal());
  return std::move(result).value();
}

}  // namespace optserve::cli
