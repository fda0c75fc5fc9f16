#include "demo_stack.h"

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "cli/stack/child_process.h"
#include "cli/stack/free_ports.h"
#include "cli/stack/http_probe.h"
#include "cli/stack/stack_keys.h"
#include "support/proc_files.h"

namespace optserve::test_support {
namespace {

constexpr std::chrono::seconds kReadyLimit{120};  // generous: sanitizer builds on two cores
constexpr std::chrono::seconds kStopLimit{60};

std::string endpoint(int port) { return "tcp://127.0.0.1:" + std::to_string(port); }

}  // namespace

bool wait_for(const std::function<bool()>& condition, Duration limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

protocol::JobSpec greedy_job(const DemoCase& golden) {
  protocol::JobSpec job;
  job.model = "demo";
  job.prompt = golden.prompt;
  job.sampling.temperature = 0;
  job.max_new_tokens = 64;
  return job;
}

protocol::JobSpec long_job(size_t prompt, uint64_t seed, int tokens) {
  protocol::JobSpec job = greedy_job(demo_goldens().cases[prompt % demo_goldens().cases.size()]);
  job.sampling.temperature = 0.8f;
  job.sampling.seed = seed;
  job.sampling.ignore_eos = true;
  job.max_new_tokens = tokens;
  return job;
}

const std::string& demo_checkpoint() {
  static const TemporaryFolder parent;
  static const std::string folder = [] {
    const std::string path = parent.path() + "/demo";
    convert_demo_model(path, 4);
    return path;
  }();
  return folder;
}

DemoStack::DemoStack(const StackOptions& options) : options_(options) {
  demo_checkpoint();
  std::vector<int> ports = cli::find_free_ports(1 + 3 * options.schedulers + options.tokenizers + options.groups +
                                                options.converters + 2 * options.gateways);
  const auto take_port = [&ports] {
    const int port = ports.back();
    ports.pop_back();
    return port;
  };
  rendezvous_port_ = take_port();
  EXPECT_TRUE(options.nodes == 1 || cli::write_key_pair(folder_.path(), "group").ok());
  for (int i = 0; i < options.schedulers; ++i) {
    schedulers_.push_back({"optserve-scheduler", take_port()});
    schedulers_.back().client_port = take_port();
    schedulers_.back().service_port = take_port();
  }
  for (int i = 0; i < options.tokenizers; ++i) tokenizers_.push_back({"optserve-tokenizer", take_port()});
  for (int i = 0; i < options.groups; ++i) workers_.push_back({"optserve-worker", take_port()});
  for (int i = 0; i < options.converters; ++i) converters_.push_back({"optserve-converter", take_port()});
  for (int i = 0; i < options.gateways; ++i) {
    gateways_.push_back({"optserve-gateway", take_port()});
    gateways_.back().client_port = take_port();
  }
  for (Part& part : schedulers_) start(part);
  for (Part& part : tokenizers_) start(part);
  for (Part& part : workers_) start(part);
  for (Part& part : converters_) start(part);
  for (Part& part : gateways_) start(part);
}

DemoStack::~DemoStack() {
  if (!::testing::Test::HasFailure()) return;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    if (entry.path().extension() != ".log") continue;
    std::ifstream file(entry.path());
    std::stringstream text;
    text << file.rdbuf();
    const std::string whole = text.str();
    std::cerr << "--- " << entry.path().filename().string() << "\n"
              << whole.substr(whole.size() > 6000 ? whole.size() - 6000 : 0) << "\n";
  }
}

std::string DemoStack::journal_of(const Part& scheduler) const {
  return folder_ / ("journal-" + std::to_string(scheduler.service_port) + ".db");
}

std::string DemoStack::logs() const {
  std::string all;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    if (entry.path().extension() != ".log") continue;
    std::ifstream file(entry.path());
    std::stringstream text;
    text << file.rdbuf();
    all += text.str();
  }
  return all;
}

std::string DemoStack::journal(int scheduler) const {
  return journal_of(schedulers_.at(static_cast<size_t>(scheduler)));
}

std::vector<std::string> DemoStack::arguments_of(const Part& part) const {
  std::vector<std::string> arguments = {"--http-port=" + std::to_string(part.http_port)};
  const auto add = [&arguments](std::initializer_list<std::string> more) { arguments.insert(arguments.end(), more); };
  if (part.name == "optserve-scheduler") {
    add({"--bind-clients=" + endpoint(part.client_port), "--bind-services=" + endpoint(part.service_port),
         "--journal=" + (options_.postgres.empty() ? journal_of(part) : options_.postgres)});
    arguments.insert(arguments.end(), options_.scheduler_arguments.begin(), options_.scheduler_arguments.end());
    return arguments;
  }
  if (part.name == "optserve-gateway") {
    for (const std::string& address : scheduler_addresses(&Part::client_port)) add({"--scheduler=" + address});
    add({"--http=127.0.0.1:" + std::to_string(part.client_port), "--model=demo=" + demo_checkpoint()});
    arguments.insert(arguments.end(), options_.gateway_arguments.begin(), options_.gateway_arguments.end());
    return arguments;
  }
  for (const std::string& address : scheduler_addresses(&Part::service_port)) add({"--scheduler=" + address});
  if (part.name == "optserve-converter") {
    arguments.insert(arguments.begin(), "serve");
    arguments.insert(arguments.end(), options_.converter_arguments.begin(), options_.converter_arguments.end());
    return arguments;
  }
  add({"--model=demo=" + demo_checkpoint()});
  if (part.name == "optserve-worker") {
    add({"--world=" + std::to_string(options_.world), "--threads=1", "--rank-http-port=0"});
    if (options_.nodes > 1) {
      add({"--nodes=" + std::to_string(options_.nodes), "--node-rank=" + std::to_string(index_of(part)),
           "--rendezvous=127.0.0.1:" + std::to_string(rendezvous_port_), "--group-key=" + group_key_file()});
    }
    arguments.insert(arguments.end(), options_.worker_arguments.begin(), options_.worker_arguments.end());
  }
  return arguments;
}

std::string DemoStack::group_key_file() const { return folder_.path() + "/group.secret"; }

ptrdiff_t DemoStack::index_of(const Part& worker) const { return &worker - workers_.data(); }

void DemoStack::start(Part& part) {
  const std::string log = folder_.path() + "/" + part.name + "-" + std::to_string(part.http_port) + ".log";
  part.process = std::make_unique<cli::ChildProcess>(
      cli::ChildProcess::start({cli::sibling_program(part.name), arguments_of(part), log}));
}

std::vector<std::string> DemoStack::scheduler_addresses(int Part::*port) const {
  std::vector<std::string> addresses;
  for (const Part& scheduler : schedulers_) {
    const std::string one = endpoint(scheduler.*port);
    if (options_.postgres.empty() || addresses.empty()) {
      addresses.push_back(one);
    } else {
      addresses.back() += "|" + one;
    }
  }
  return addresses;
}

std::string DemoStack::client_endpoint(int scheduler) const {
  return scheduler_addresses(&Part::client_port).at(options_.postgres.empty() ? static_cast<size_t>(scheduler) : 0);
}

std::unique_ptr<Client> DemoStack::client(int scheduler) const {
  client::ClientOptions options;
  options.endpoints = client_endpoint(scheduler);
  options.timeout = std::chrono::seconds(30);
  return std::make_unique<Client>(options);
}

bool DemoStack::is_ready(const Part& part) {
  const auto answer = cli::http_get(part.http_port, "/readyz", milliseconds(1000), SystemClock());
  return answer && answer->status == 200;
}

int DemoStack::leader() const {
  for (size_t i = 0; i < schedulers_.size(); ++i) {
    if (is_ready(schedulers_[i])) return static_cast<int>(i);
  }
  return -1;
}

void DemoStack::wait_ready() {
  const SystemClock clock;
  std::vector<const Part*> parts;
  if (!options_.postgres.empty()) {
    ASSERT_TRUE(wait_for([&] { return leader() >= 0; }, kReadyLimit)) << "no scheduler leads";
  }
  for (const Part& part : schedulers_) {
    if (options_.postgres.empty()) parts.push_back(&part);
  }
  for (const Part& part : tokenizers_) parts.push_back(&part);
  for (const Part& part : workers_) parts.push_back(&part);
  for (const Part& part : converters_) parts.push_back(&part);
  for (const Part& part : gateways_) parts.push_back(&part);
  const Instant until = clock.now() + kReadyLimit;
  for (const Part* part : parts) {
    ASSERT_TRUE(wait_for([&] { return is_ready(*part); }, until - clock.now())) << part->name << " is not ready";
  }
}

void DemoStack::replace_scheduler() {
  kill_scheduler(0);
  start_scheduler(0);
}

void DemoStack::kill_scheduler(int index) {
  Part& part = schedulers_.at(static_cast<size_t>(index));
  part.process->signal(SIGKILL);
  part.process->wait();
}

void DemoStack::start_scheduler(int index) { start(schedulers_.at(static_cast<size_t>(index))); }

void DemoStack::signal_scheduler(int index, int signal) {
  schedulers_.at(static_cast<size_t>(index)).process->signal(signal);
}

int DemoStack::wait_scheduler(int index) { return schedulers_.at(static_cast<size_t>(index)).process->wait(); }

void DemoStack::replace_tokenizer(int index) { replace(tokenizers_.at(static_cast<size_t>(index))); }

void DemoStack::replace_supervisor(int group) { replace(workers_.at(static_cast<size_t>(group))); }

void DemoStack::replace(Part& part) {
  part.process->signal(SIGKILL);
  part.process->wait();
  start(part);
}

void DemoStack::kill_converter(int index) {
  Part& part = converters_.at(static_cast<size_t>(index));
  part.process->signal(SIGKILL);
  part.process->wait();
}

void DemoStack::start_converter(int index) { start(converters_.at(static_cast<size_t>(index))); }

int DemoStack::end_gateway(int index, int signal) {
  Part& part = gateways_.at(static_cast<size_t>(index));
  part.process->signal(signal);
  return part.process->wait();
}

void DemoStack::start_gateway(int index) { start(gateways_.at(static_cast<size_t>(index))); }

std::vector<pid_t> DemoStack::rank_pids(int group) const {
  std::vector<pid_t> pids;
  const std::vector<pid_t> children = children_of(workers_.at(static_cast<size_t>(group)).process->pid());
  for (int rank = 0; rank < options_.world; ++rank) {
    for (const pid_t child : children) {
      if (command_line(child).find(" --rank=" + std::to_string(rank) + " ") != std::string::npos) pids.push_back(child);
    }
  }
  return pids;
}

void DemoStack::kill_rank(int group, int rank) {
  const auto pids = rank_pids(group);
  ASSERT_GT(pids.size(), static_cast<size_t>(rank));
  kill(pids[static_cast<size_t>(rank)], SIGKILL);
}

void DemoStack::stop_rank(int group, int rank) {
  const auto pids = rank_pids(group);
  ASSERT_GT(pids.size(), static_cast<size_t>(rank));
  kill(pids[static_cast<size_t>(rank)], SIGSTOP);
}

bool DemoStack::shut_down() {
  const auto until = std::chrono::steady_clock::now() + kStopLimit;
  bool clean = true;
  const auto stop = [&](Part& part) {
    part.process->signal(SIGTERM);
    wait_for([&] { return part.process->poll_exit().has_value(); }, until - std::chrono::steady_clock::now());
    const std::optional<int> status = part.process->poll_exit();
    if (status == 0) return;
    clean = false;
    ADD_FAILURE() << part.name << (status ? " " + cli::describe_exit(*status) : " did not stop");
  };
  std::erase_if(converters_, [](Part& part) { return part.process->poll_exit() == SIGKILL; });  // by kill_converter()
  for (Part& part : gateways_) stop(part);
  for (Part& part : converters_) stop(part);
  for (Part& part : workers_) stop(part);
  for (Part& part : tokenizers_) stop(part);
  for (Part& part : schedulers_) stop(part);
  return clean;
}

}  // namespace optserve::test_support
