// How the commands that talk to a scheduler find it, and what its silence means for the exit status.
#pragma once

#include <memory>
#include <string>

#include "base/config.h"
#include "base/error.h"
#include "client/client.h"

namespace optserve::cli {

struct ConnectionOptions {
  std::string scheduler;    // endpoint; empty: that of the stack in `folder`, else the default
  std::string folder;       // of a local stack
  int timeout_ms = 10'000;  // of one request, retries included
};
void add_options(ConfigParser& parser, ConnectionOptions& options);

// A failure with its exit status; main prints it.
struct CommandFailure {
  int exit_status = 0;
  std::string message;
};

// A scheduler that has answered.
class Connection {
 public:
  // Asks the scheduler for its status first, so that one that cannot be reached is told apart from one that refuses.
  // Throws CommandFailure.
  static Connection open(const ConnectionOptions& options);

  Client& client() { return *client_; }
  const std::string& endpoint() const { return endpoint_; }
  const protocol::SystemStatus& status() const { return status_; }
  // `wanted`, or the one model that is served. Throws CommandFailure when there are none or several.
  std::string choose_model(const std::string& wanted) const;

 private:
  Connection() = default;
  std::string endpoint_;
  std::unique_ptr<Client> client_;
  protocol::SystemStatus status_;
};

// The value, or a CommandFailure with the refusal's code and message.
template <class T>
T value_or_fail(Result<T> result);
[[noreturn]] void fail(const Refusal& refusal);

// A job id from the command line; throws CommandFailure (usage) if it is none.
JobId parse_job(const std::string& text);

template <class T>
T value_or_fail(Result<T> result) {
  if (!result.ok()) fail(result.refusal());
  return std::move(result).value();
}

}  // namespace optserve::cli
