// A whole local system on loopback for tests: the demo model converted once per program run, schedulers with their
// journals in a temporary folder, tokenizers, worker groups and converters as real processes on free ports. Everything
// is ended by its own pid.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/stack/child_process.h"
#include "client/client.h"
#include "support/demo_model.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {

using client::Client;
using client::JobStream;

struct StackOptions {
  int schedulers = 1;
  int world = 1;
  int groups = 1;
  int nodes = 1;  // above 1: the groups are the hosts of one group with a key, each with world / nodes ranks
  int tokenizers = 1;
  int converters = 0;
  int gateways = 0;
  std::vector<std::string> converter_arguments = {};
  std::vector<std::string> worker_arguments = {};
  std::vector<std::string> scheduler_arguments = {};
  std::vector<std::string> gateway_arguments = {};
  // Of a PostgreSQL database with the queue "optserve": the schedulers are one queue's leader and its standbys.
  std::string postgres = {};
};

// Looks every few milliseconds whether `condition` holds; false if it does not within `limit`.
bool wait_for(const std::function<bool()>& condition, Duration limit);

// A greedy job of 64 tokens for one of the demo model's golden cases.
protocol::JobSpec greedy_job(const DemoCase& golden);

// A job that goes on for all of its tokens whatever it draws, with one of the demo's prompts: its text is that of
// `seed`.
protocol::JobSpec long_job(size_t prompt, uint64_t seed, int tokens);

// The demo model as a sharded checkpoint of 4 shards, converted once per test program.
const std::string& demo_checkpoint();

class DemoStack {
 public:
  explicit DemoStack(const StackOptions& options);
  ~DemoStack();
  DemoStack(const DemoStack&) = delete;
  DemoStack& operator=(const DemoStack&) = delete;

  std::unique_ptr<Client> client(int scheduler = 0) const;
  std::string client_endpoint(int scheduler = 0) const;
  int client_port(int scheduler = 0) const { return schedulers_.at(static_cast<size_t>(scheduler)).client_port; }
  std::string journal(int scheduler = 0) const;  // its path
  std::string logs() const;                      // of all processes, one after another
  // Waits until /readyz of every process answers 200; fails the test after a minute.
  void wait_ready();

  // kill -9, and a new process in the same place (same ports, same journal).
  void replace_scheduler();
  // The two halves of it.
  void kill_scheduler(int index);
  void start_scheduler(int index);
  void signal_scheduler(int index, int signal);
  int wait_scheduler(int index);  // what it ended with
  // Of schedulers with one queue: the one that is ready, -1 if none is.
  int leader() const;
  void replace_tokenizer(int index);
  void replace_supervisor(int group);
  void kill_converter(int index);  // kill -9
  void start_converter(int index);
  pid_t converter_pid(int index) const { return converters_.at(static_cast<size_t>(index)).process->pid(); }
  int gateway_port(int index = 0) const { return gateways_.at(static_cast<size_t>(index)).client_port; }  // of the API
  // Sends a signal that ends a gateway, and returns what it ended with (ChildProcess::poll_exit); starts another one.
  int end_gateway(int index, int signal);
  void start_gateway(int index);
  // kill -9 of one rank of a group, the `rank`th of its host; its supervisor is expected to replace the group.
  void kill_rank(int group, int rank);
  void stop_rank(int group, int rank);  // SIGSTOP: the rank hangs
  // Pids of the ranks of a group (of a host, if the group has several), in rank order; empty while it restarts.
  std::vector<pid_t> rank_pids(int group) const;
  std::string group_key_file() const;  // of a group of several hosts
  // SIGTERM to all, in order; true if every process exited with status 0 within the deadline.
  bool shut_down();

 private:
  // One process and the port of its health endpoints.
  struct Part {
    std::string name;
    int http_port = 0;
    std::unique_ptr<cli::ChildProcess> process = nullptr;
    int client_port = 0, service_port = 0;  // of a scheduler; the former of a gateway too
  };
  void start(Part& part);
  void replace(Part& part);
  // Addresses of the schedulers' ports, as their peers take them.
  std::vector<std::string> scheduler_addresses(int Part::*port) const;
  static bool is_ready(const Part& part);
  std::string journal_of(const Part& scheduler) const;
  std::vector<std::string> arguments_of(const Part& part) const;
  ptrdiff_t index_of(const Part& worker) const;

  StackOptions options_;
  TemporaryFolder folder_;
  int rendezvous_port_ = 0;
  std::vector<Part> schedulers_, tokenizers_, workers_, converters_, gateways_;
};

// A fixture with one stack for all tests of the program.
class DemoStackTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    stack_ = std::make_unique<DemoStack>(StackOptions{});
    stack_->wait_ready();
  }
  static void TearDownTestSuite() { stack_.reset(); }

  inline static std::unique_ptr<DemoStack> stack_;
};

}  // namespace optserve::test_support
