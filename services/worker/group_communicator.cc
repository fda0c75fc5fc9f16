#include "worker/group_communicator.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "base/build_info.h"
#include "base/config.h"
#include "base/log.h"
#include "comm/tcp/socket.h"

namespace optserve::worker {
namespace {

constexpr int kNcclSetupMs = 120'000;
// The supervisor holds ranks to a shorter deadline once they have loaded; before, one may be slower than another.
constexpr int kPeerTimeoutLeastMs = 30'000;

comm::Collectives collectives(const std::string& text) {
  if (text == "nccl") return comm::Collectives::kNccl;
  return text == "peer" ? comm::Collectives::kPeer : comm::Collectives::kAuto;
}

comm::TcpGroupOptions tcp_options(const WorkerOptions& options) {
  comm::TcpGroupOptions tcp;
  tcp.host = options.rendezvous_host();
  tcp.port = options.rendezvous_port();
  tcp.group = options.model_name() + " on " + options.device + ", optserve " + std::string(build_version());
  tcp.key = keys::load_group_key(options.group_key);
  tcp.rank = options.rank;
  tcp.world = options.world;
  tcp.meet_timeout_ms = options.load_deadline_ms;
  tcp.timeout_ms = options.step_deadline_ms;
  // A supervisor sees only the ranks of its own host. Without this, nobody would end a rank that hangs in its device
  // because a rank of another host has died.
  tcp.on_stuck = [rank = options.rank](const std::string& reason) {
    log_error("rank_stuck", {{"rank", rank}, {"cause", reason}});
    _exit(1);  // no destructors: the device may hang in them, too
  };
  return tcp;
}

// NCCL neither encrypts nor asks who connects, so whoever reaches its sockets can talk to them: within one host they
// stay on the loopback interface, otherwise on the one over which the ranks meet.
void confine_nccl(const WorkerOptions& options) {
  const std::string interface =
      options.nodes == 1 ? "lo" : comm::tcp::interface_towards(options.rendezvous_host(), options.rendezvous_port());
  if (!interface.empty()) setenv("NCCL_SOCKET_IFNAME", ("=" + interface).c_str(), 0);
  log_info("nccl_interface", {{"rank", options.rank}, {"interface", environment_variable("NCCL_SOCKET_IFNAME")}});
}

metrics::Histogram duration_of(metrics::Registry& registry, const char* operation) {
  return registry.histogram("optserve_worker_collective_seconds",
                            "Time of an operation of all ranks, waiting for the slowest included; only on CPUs",
                            {0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1, 1, 10},
                            {{"operation", operation}});
}

// Counts and times all_reduce_sum, all_gather and broadcast: for groups of CPUs, where an operation is done when it
// returns. An idle group waits in the other operations.
class MeasuredCommunicator final : public comm::Communicator {
 public:
  MeasuredCommunicator(std::unique_ptr<comm::Communicator> measured, metrics::Registry& registry, const Clock& clock)
      : measured_(std::move(measured)),
        clock_(clock),
        reduce_(duration_of(registry, "all_reduce")),
        gather_(duration_of(registry, "all_gather")),
        broadcast_(duration_of(registry, "broadcast")) {}

  int rank() const override { return measured_->rank(); }
  int world() const override { return measured_->world(); }
  void all_reduce_sum(Tensor x) override {
    time(reduce_, [&] { measured_->all_reduce_sum(x); });
  }
  void all_gather(Tensor x, Tensor out) override {
    time(gather_, [&] { measured_->all_gather(x, out); });
  }
  void broadcast(Tensor x, int root) override {
    time(broadcast_, [&] { measured_->broadcast(x, root); });
  }
  void broadcast_bytes(std::vector<uint8_t>& bytes, int root) override { measured_->broadcast_bytes(bytes, root); }
  int64_t all_reduce_min(int64_t value) override { return measured_->all_reduce_min(value); }
  void barrier() override { measured_->barrier(); }
  void abort(const std::string& reason) override { measured_->abort(reason); }
  void throw_if_lost() override { measured_->throw_if_lost(); }

 private:
  template <class Call>
  void time(const metrics::Histogram& histogram, const Call& call) {
    const Instant begun = clock_.now();
    call();
    histogram.observe(std::chrono::duration<double>(clock_.now() - begun).count());
  }

  std::unique_ptr<comm::Communicator> measured_;
  const Clock& clock_;
  metrics::Histogram reduce_, gather_, broadcast_;
};

}  // namespace

std::unique_ptr<comm::Communicator> make_group_communicator(const WorkerOptions& options, backend::Backend& backend,
                                                            metrics::Registry& registry, const Clock& clock) {
  if (options.world == 1) return comm::make_solo_communicator();
  std::unique_ptr<comm::Communicator> control;
  if (options.nodes > 1) {
    control = comm::make_tcp_communicator(tcp_options(options), clock);
  } else {
    const comm::ProcessGroupMemory memory{options.group_fd, static_cast<size_t>(options.group_bytes)};
    control = comm::make_process_communicator(memory, options.rank, options.world, options.step_deadline_ms, clock);
  }
  if (options.device == "cpu") {
    return std::make_unique<MeasuredCommunicator>(std::move(control), registry, clock);
  }
  confine_nccl(options);
  comm::NcclOptions nccl;
  nccl.device = options.local_rank();
  nccl.stream = backend.native_stream();
  nccl.sum_in_order = options.deterministic;
  nccl.allocate = [&backend](size_t bytes) { return backend.allocate(bytes); };
  nccl.allocate_host = [&backend](size_t bytes) { return backend.allocate_host(bytes); };
  nccl.collectives = collectives(options.collectives);
  nccl.one_host = options.nodes == 1;
  nccl.peer_timeout_ms = std::max(options.step_deadline_ms, kPeerTimeoutLeastMs);
  nccl.timeout_ms = std::max(options.step_deadline_ms, kNcclSetupMs);
  return comm::make_nccl_communicator(std::move(control), nccl, clock);
}

}  // namespace optserve::worker
