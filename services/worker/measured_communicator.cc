#include "worker/measured_communicator.h"

#include <chrono>
#include <string>
#include <utility>

namespace optserve::worker {
namespace {

metrics::Histogram duration_of(metrics::Registry& registry, const char* operation) {
  return registry.histogram("optserve_worker_collective_seconds",
                            "Time of an operation of all ranks, waiting for the slowest included; only on CPUs",
                            {0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1, 1, 10},
                            {{"operation", operation}});
}

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

std::unique_ptr<comm::Communicator> measure(std::unique_ptr<comm::Communicator> measured, metrics::Registry& registry,
                                            const Clock& clock) {
  return std::make_unique<MeasuredCommunicator>(std::move(measured), registry, clock);
}

}  // namespace optserve::worker
