#include "topology.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <thread>
#include <utility>

#include "base/error.h"
#include "cli/stack/child_process.h"
#include "cli/stack/free_ports.h"
#include "launch.h"
#include "ledger.h"
#include "support/demo_model.h"

namespace optserve::chaos {
namespace {

constexpr int64_t kStopLimitMs = 60'000;
constexpr int64_t kRestartLimitMs = 60'000;
constexpr int64_t kHandlersWithinMs = 10'000;  // how long a process may take to install its handlers, on a busy machine
constexpr int64_t kLastJobsLimitMs = 400'000;  // a client gives up earlier, unless jobs still end one by one

ShimControl* make_shim(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate(fd, sizeof(ShimControl)) != 0) throw errno_error("make " + path);
  void* memory = mmap(nullptr, sizeof(ShimControl), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory == MAP_FAILED) throw errno_error("map " + path);
  return static_cast<ShimControl*>(memory);
}

std::string endpoint(const TcpAddress& address) { return "tcp://" + address.host + ":" + std::to_string(address.port); }

}  // namespace

Topology::Topology(const TopologyOptions& options, Network* network, TcpProxy& proxy)
    : options_(options), network_(network), proxy_(proxy) {
  test_support::convert_demo_model(options_.folder + "/demo", options_.world);
  add_scheduler();
  add_services();
  add_clients();
}

Topology::~Topology() {
  for (const auto& member : members_) {
    if (member->shim != nullptr) munmap(member->shim, sizeof(ShimControl));
  }
}

Member& Topology::add(const std::string& name, Role role, const std::string& program) {
  members_.push_back(std::make_unique<Member>());
  Member& member = *members_.back();
  member.name = name;
  member.role = role;
  member.spec = {program, {}, options_.folder + "/" + name + ".log"};
  if (network_ != nullptr) member.node = network_->add_node();
  if (options_.preload && role != Role::kClient) member.shim = make_shim(options_.folder + "/" + name + ".shim");
  return member;
}

// The address to which the member connects. With network namespaces, every second member connects directly.
std::string Topology::route(Member& member, const TcpAddress& target) {
  if (network_ != nullptr && member.node % 2 == 0) return endpoint(target);
  TcpAddress listen{network_ != nullptr ? network_->router_address(member.node) : "127.0.0.1", 0};
  member.link = proxy_.add_link(listen, target);
  listen.port = proxy_.port(member.link);
  return endpoint(listen);
}

void Topology::add_scheduler() {
  Member& member = add("scheduler", Role::kScheduler, cli::sibling_program("optserve-scheduler"));
  const std::string host = network_ != nullptr ? network_->address(member.node) : "127.0.0.1";
  const std::vector<int> ports = cli::find_free_ports(2);
  client_address_ = {host, ports[0]};
  service_address_ = {host, ports[1]};
  member.spec.arguments = {"--bind-clients=" + endpoint(client_address_),
                           "--bind-services=" + endpoint(service_address_),
                           "--journal=" + journal_folder() + "/journal.db", "--drain-seconds=10", "--insecure"};
}

void Topology::add_services() {
  const std::string model = "--model=demo=" + options_.folder + "/demo";
  for (int i = 0; i < options_.tokenizers; ++i) {
    Member& member =
        add("tokenizer-" + std::to_string(i), Role::kTokenizer, cli::sibling_program("optserve-tokenizer"));
    member.spec.arguments = {"--scheduler=" + route(member, service_address_), model, "--insecure"};
  }
  for (int i = 0; i < options_.groups; ++i) {
    Member& member = add("worker-" + std::to_string(i), Role::kWorker, cli::sibling_program("optserve-worker"));
    member.spec.arguments = {"--scheduler=" + route(member, service_address_),
                             model,
                             "--world=" + std::to_string(options_.world),
                             "--threads=1",
                             "--rank-http-port=0",
                             "--kv-tokens=4096",
                             "--max-sequences=16",
                             "--step-deadline-ms=5000",
                             "--drain-ms=10000",
                             "--insecure"};
  }
}

void Topology::add_clients() {
  for (int i = 0; i < options_.clients; ++i) {
    Member& member = add("client-" + std::to_string(i), Role::kClient, "/proc/self/exe");
    member.spec.arguments = {"client",
                             "--endpoint=" + route(member, client_address_),
                             "--ledger=" + ledger(i),
                             "--seed=" + std::to_string(options_.seed),
                             "--client=" + std::to_string(i),
                             "--rate=" + std::to_string(options_.load / options_.clients),
                             "--slow-ms=" + std::to_string(i == 0 ? 50 : 0)};
  }
}

std::vector<Member*> Topology::members(Role role) {
  std::vector<Member*> found;
  for (const auto& member : members_) {
    if (member->role == role) found.push_back(member.get());
  }
  return found;
}

void Topology::launch(Member& member) {
  if (const auto prepare = std::exchange(member.before_start, {})) prepare();
  Surroundings around;
  if (network_ != nullptr) around.network = network_->namespace_path(member.node);
  if (member.shim != nullptr) around.shim = options_.folder + "/" + member.name + ".shim";
  member.started_ms = now_ms();
  member.start_at_ms = -1;
  member.exit_expected = member.must_exit_clean = false;
  member.process = std::make_unique<cli::ChildProcess>(cli::ChildProcess::start(launched(member.spec, around)));
}

void Topology::start(Role role) {
  for (Member* member : members(role)) launch(*member);
}

void Topology::note_exit(Member& member, int status) {
  // SIGTERM kills a program that has not installed its handlers yet; it then holds nothing that could be lost.
  const bool is_early = member.told_to_end_ms - member.started_ms < kHandlersWithinMs && WIFSIGNALED(status) &&
                        WTERMSIG(status) == SIGTERM;
  const bool clean = is_early || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
  if (!member.exit_expected || (member.must_exit_clean && !clean)) {
    surprises_.push_back(member.name + " " + cli::describe_exit(status) +
                         (member.exit_expected ? " after SIGTERM" : " by itself"));
  }
  if (!member.exit_expected) member.start_at_ms = now_ms() + 500;
  member.process.reset();
}

void Topology::poll() {
  for (const auto& member : members_) {
    if (member->process) {
      if (const auto status = member->process->poll_exit()) note_exit(*member, *status);
    }
    if (!member->process && member->start_at_ms >= 0 && now_ms() >= member->start_at_ms) launch(*member);
  }
}

void Topology::kill(Member& member, int64_t restart_after_ms) {
  member.exit_expected = true;
  member.start_at_ms = now_ms() + restart_after_ms;
  member.process->signal(SIGKILL);
}

void Topology::terminate(Member& member, int64_t restart_after_ms) {
  member.told_to_end_ms = now_ms();
  member.exit_expected = member.must_exit_clean = true;
  member.start_at_ms = restart_after_ms < 0 ? -1 : now_ms() + restart_after_ms;
  member.process->signal(SIGTERM);
}

void Topology::wait_until(const std::function<bool()>& condition, int64_t limit_ms) {
  const int64_t until = now_ms() + limit_ms;
  while (!condition() && now_ms() < until) {
    poll();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

bool Topology::finish_clients() {
  const auto all = members(Role::kClient);
  // A client that was killed a moment ago is started again first, since its jobs must end as well.
  const auto listens = [](Member* m) { return m->is_up() && now_ms() - m->started_ms >= kHandlersWithinMs; };
  wait_until([&] { return std::all_of(all.begin(), all.end(), listens); }, kRestartLimitMs);
  const size_t before = surprises_.size();
  for (Member* client : all) {
    if (client->is_up()) terminate(*client, -1);
  }
  wait_until([&] { return std::none_of(all.begin(), all.end(), [](Member* m) { return m->process != nullptr; }); },
             kLastJobsLimitMs);
  bool ended = surprises_.size() == before;
  for (Member* client : all) {
    if (client->process == nullptr) continue;
    client->process.reset();
    ended = false;
  }
  return ended;
}

bool Topology::shut_down() {
  const size_t before = surprises_.size();
  for (const Role role : {Role::kWorker, Role::kTokenizer, Role::kScheduler}) {
    const auto all = members(role);
    for (Member* member : all) {
      member->start_at_ms = -1;
      if (member->process) terminate(*member, -1);
    }
    wait_until([&] { return std::none_of(all.begin(), all.end(), [](Member* m) { return m->process != nullptr; }); },
               kStopLimitMs);
    for (Member* member : all) {
      if (member->process == nullptr) continue;
      surprises_.push_back(member->name + " does not stop");
      member->process.reset();
    }
  }
  return surprises_.size() == before;
}

}  // namespace optserve::chaos
