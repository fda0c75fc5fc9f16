// The connection of a command to the schedulers, and what it does with their answers.
#pragma once

#include <memory>
#include <string>

#include "base/config.h"
#include "base/error.h"
#include "cli/commands/command.h"
#include "client/client.h"

namespace optserve::cli {

using client::Answers;
using client::Client;

struct ConnectionOptions {
  std::string scheduler;    // addresses; empty: that of the stack in `folder`, or the default
  std::string folder;       // of a local stack; may be empty
  int timeout_ms = 10'000;  // of one request, retries included
};
void add_options(ConfigParser& parser, ConnectionOptions& options);

// A client of schedulers of which at least one has answered.
class Connection {
 public:
  // Asks the schedulers for their status first, to tell unreachable schedulers from those that refuse. Throws
  // CommandFailure (kExitUnreachable) if none answers.
  static Connection open(const ConnectionOptions& options);

  Client& client() { return *client_; }
  const Answers<protocol::SystemStatus>& status() const { return status_; }
  // `wanted`, or the one model that is served. Throws CommandFailure when there are none or several.
  std::string choose_model(const std::string& wanted) const;

 private:
  Connection() = default;
  std::unique_ptr<Client> client_;
  Answers<protocol::SystemStatus> status_;
};

// The value, or a CommandFailure with the refusal's code and message.
template <class T>
T value_or_fail(Result<T> result);
[[noreturn]] void fail(const Refusal& refusal);

// Prints a line to standard error for each scheduler that refused. Returns kExitOk if none did, else kExitRefused.
template <class T>
int report_refusals(const Answers<T>& answers);
void report_refusal(const std::string& endpoint, const Refusal& refusal);

// A job id from the command line. Throws CommandFailure (kExitUsage) for other text.
JobId parse_job(const std::string& text);

template <class T>
int report_refusals(const Answers<T>& answers) {
  int exit_status = kExitOk;
  for (const auto& [endpoint, answer] : answers) {
    if (answer.ok()) continue;
    report_refusal(endpoint, answer.refusal());
    exit_status = kExitRefused;
  }
  return exit_status;
}

template <class T>
T value_or_fail(Result<T> result) {
  if (!result.ok()) fail(result.refusal());
  return std::move(result).value();
}

}  // namespace optserve::cli
