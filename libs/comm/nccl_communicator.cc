// Collectives of tensors over NCCL, everything else over the control communicator. NCCL does not reliably notice that a
// peer is dead; the control communicator and the worker's supervisor do, and they end the process.
#include <cuda_runtime.h>
#include <nccl.h>
#include <sched.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "comm/communicator.h"
#include "comm/nccl_peer_memory.h"
#include "kernels/elementwise.h"

namespace optserve::comm {

namespace {

constexpr milliseconds kEndTime{5'000};  // for finishing and for freeing, both of which hang if a peer has died
constexpr milliseconds kPoll{1};

// Runs `call` in a thread of its own and waits for it at most `time`. False if it has not returned by then; its thread
// is then left behind, since the process is about to end.
bool run_bounded(const std::function<void()>& call, milliseconds time) {
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
  };
  const auto state = std::make_shared<State>();  // outlives whichever side ends first
  std::thread([state, call] {
    call();
    const std::lock_guard lock(state->mutex);
    state->done = true;
    state->changed.notify_all();
  }).detach();
  std::unique_lock lock(state->mutex);
  return state->changed.wait_for(lock, time, [&] { return state->done; });
}

void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw Error(std::string(what) + ": " + cudaGetErrorString(status));
}

ncclDataType_t summed_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return ncclFloat32;
    case DType::kF16:
      return ncclFloat16;
    case DType::kBF16:
      return ncclBfloat16;
    case DType::kI32:
      return ncclInt32;
    default:
      check_failed("NCCL adds F32, F16, BF16 or I32", std::source_location::current());
  }
}

kernels::Element summed_element(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return kernels::Element::kF32;
    case DType::kF16:
      return kernels::Element::kF16;
    case DType::kBF16:
      return kernels::Element::kBF16;
    default:
      check_failed("sums in the order of the ranks are of F32, F16 or BF16", std::source_location::current());
  }
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> control, const NcclOptions& options, const Clock& clock)
      : control_(std::move(control)),
        options_(options),
        stream_(static_cast<cudaStream_t>(options.stream)),
        clock_(clock) {
    // Multicast (NVLink SHARP) is never used: a process that dies in it can take the GPUs of its host out of service.
    // NCCL reads its environment at its first call.
    setenv("NCCL_NVLS_ENABLE", "0", 1);
    check_cuda(cudaSetDevice(options.device), "cudaSetDevice");
    const ncclUniqueId id = exchange_id();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = options.blocking ? 1 : 0;
    try {
      settle(ncclCommInitRankConfig(&comm_, world(), id, rank(), &config), "setup", kPoll);
      set_up_peer_memory();
    } catch (...) {
      abort_nccl();
      throw;
    }
  }

  ~NcclCommunicator() override {
    if (comm_ == nullptr) return;
    const bool ended = run_bounded([comm = comm_, device = options_.device] { finish(comm, device); }, 2 * kEndTime);
    if (!ended) log_warn("nccl_end_hangs", {{"rank", rank()}});
  }

  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return control_->rank(); }
  int world() const override { return control_->world(); }

  void all_reduce_sum(Tensor x) override {
    check_block(x);
    if (x.numel() == 0) return;
    if (peers_ != nullptr && peers_->takes(x)) {
      (void)running();
      return peers_->sum(x);
    }
    if (options_.sum_in_order && world() > 1) return sum_in_order(x);
    const ncclComm_t comm = running();
    const auto count = static_cast<size_t>(x.numel());
    settle(ncclAllReduce(x.raw(), x.raw(), count, summed_type(x.dtype()), ncclSum, comm, stream_), "all_reduce_sum");
  }

  bool try_sum_and_norm(const SumAndNorm& work) override {
    if (peers_ == nullptr || work.x.numel() == 0 || !peers_->takes(work)) return false;
    (void)running();
    check_block(work.x);
    peers_->sum_and_norm(work);
    return true;
  }

  // Elements are only moved here, so their type does not matter.
  void all_gather(Tensor x, Tensor out) override {
    check_block(x);
    check_block(out);
    check_eq(out.bytes(), x.bytes() * static_cast<size_t>(world()), "bytes gathered");
    if (x.numel() == 0) return;
    const ncclComm_t comm = running();
    settle(ncclAllGather(x.raw(), out.raw(), x.bytes(), ncclUint8, comm, stream_), "all_gather");
  }

  void broadcast(Tensor x, int root) override {
    check_block(x);
    if (x.numel() == 0) return;
    const ncclComm_t comm = running();
    settle(ncclBroadcast(x.raw(), x.raw(), x.bytes(), ncclUint8, root, comm, stream_), "broadcast");
  }

  void broadcast_bytes(std::vector<uint8_t>& bytes, int root) override { control_->broadcast_bytes(bytes, root); }
  int64_t all_reduce_min(int64_t value) override { return control_->all_reduce_min(value); }
  void barrier() override { control_->barrier(); }

  // Tells the peers first. Aborting NCCL ends the kernels that wait for a dead peer, so that the stream can be waited
  // for.
  void abort(const std::string& reason) override {
    control_->abort(reason);
    if (peers_ != nullptr) peers_->stop();
    abort_nccl();
  }

  void throw_if_lost() override {
    control_->throw_if_lost();
    throw_if_given_up();
    ncclResult_t state = ncclSuccess;
    if (ncclCommGetAsyncError(running(), &state) != ncclSuccess || (state != ncclSuccess && state != ncclInProgress)) {
      fail(state, "running");
    }
  }

  void throw_if_given_up() override {
    if (peers_ == nullptr) return;
    const std::string cause = peers_->given_up();
    if (cause.empty()) return;
    control_->throw_if_lost();
    abort(cause);
    control_->throw_if_lost();
    throw Error(cause);
  }

  Way way() const override { return {peers_ != nullptr ? "peer memory" : "NCCL", cause_, peers_ != nullptr}; }

 private:
  void set_up_peer_memory() {
    if (options_.collectives == Collectives::kNccl || world() == 1) return;
    if (options_.one_host) {
      const PeerMemoryOptions peer{options_.device, stream_, options_.peer_timeout_ms, options_.allocate,
                                   options_.allocate_host};
      peers_ = PeerMemory::create(
          *control_, peer, [this](const Tensor& x) { sum_in_order(x); }, cause_);
    } else {
      cause_ = "the ranks are on several hosts";
    }
    if (peers_ == nullptr && options_.collectives == Collectives::kPeer) {
      throw Error("sums over peer memory are not possible: " + cause_);
    }
  }

  // Rank 0 sends NCCL's id of the group to the others, over the control communicator. Its version goes with it, because
  // ranks of different versions of NCCL hang instead of failing.
  ncclUniqueId exchange_id() {
    int version = 0;
    ncclUniqueId id{};
    if (const ncclResult_t status = ncclGetVersion(&version); status != ncclSuccess) fail(status, "ncclGetVersion");
    if (rank() == 0) {
      if (const ncclResult_t status = ncclGetUniqueId(&id); status != ncclSuccess) fail(status, "ncclGetUniqueId");
    }
    std::vector<uint8_t> bytes(sizeof version + sizeof id);
    std::memcpy(bytes.data(), &version, sizeof version);
    std::memcpy(bytes.data() + sizeof version, &id, sizeof id);
    const size_t expected = bytes.size();
    control_->broadcast_bytes(bytes, 0);
    int theirs = 0;
    if (bytes.size() == expected) std::memcpy(&theirs, bytes.data(), sizeof theirs);
    if (theirs != version) {
      const std::string reason = "rank " + std::to_string(rank()) + " has NCCL " + std::to_string(version) +
                                 ", rank 0 has " + std::to_string(theirs);
      control_->abort(reason);
      throw Error(reason);
    }
    std::memcpy(&id, bytes.data() + sizeof version, sizeof id);
    return id;
  }

  // Waits for what was enqueued and frees the communicator. Work that has not ended after kEndTime waits for a peer
  // that is gone, and is aborted. Failures do not matter at this point.
  static void finish(ncclComm_t comm, int device) {
    cudaSetDevice(device);
    ncclResult_t state = ncclCommFinalize(comm);
    for (milliseconds waited{0}; state == ncclInProgress && waited < kEndTime; waited += kPoll) {
      std::this_thread::sleep_for(kPoll);
      if (ncclCommGetAsyncError(comm, &state) != ncclSuccess) break;
    }
    if (state == ncclSuccess) {
      ncclCommDestroy(comm);
    } else {
      ncclCommAbort(comm);
    }
  }

  void abort_nccl() {
    if (comm_ == nullptr) return;
    const auto abort_it = [comm = std::exchange(comm_, nullptr), device = options_.device] {
      cudaSetDevice(device);
      ncclCommAbort(comm);
    };
    if (!run_bounded(abort_it, kEndTime)) log_warn("nccl_abort_hangs", {{"rank", rank()}});
  }

  void sum_in_order(const Tensor& x) {
    void* blocks = scratch(x.bytes() * static_cast<size_t>(world()));
    const ncclComm_t comm = running();
    settle(ncclAllGather(x.raw(), blocks, x.bytes(), ncclUint8, comm, stream_), "all_reduce_sum");
    check_cuda(kernels::sum_ranks(summed_element(x.dtype()), blocks, world(), x.numel(), x.raw(), stream_),
               "all_reduce_sum");
  }

  // Grows only outside of recordings, since each size is run once before it is recorded. Smaller buffers are kept,
  // because recorded graphs use them.
  void* scratch(size_t bytes) {
    if (scratch_.empty() || scratch_.back().bytes() < bytes) scratch_.push_back(options_.allocate(bytes));
    return scratch_.back().data();
  }

  ncclComm_t running() {
    if (comm_ != nullptr) return comm_;
    control_->throw_if_lost();
    throw Error("the NCCL communicator was aborted");
  }

  void check_block(const Tensor& x) const {
    check(x.device() == Device{DeviceKind::kCuda, options_.device}, "NCCL moves memory of its own device only");
    check(x.contiguous(), "collectives need contiguous tensors");
  }

  // Waits until the call has been enqueued. Allowed while the stream is being recorded, since nothing here touches it.
  void settle(ncclResult_t status, const char* operation, milliseconds poll = milliseconds(0)) {
    if (status == ncclSuccess) return;
    const Instant until = clock_.now() + milliseconds(options_.timeout_ms);
    while (status == ncclInProgress) {
      if (ncclCommGetAsyncError(comm_, &status) != ncclSuccess || status != ncclInProgress) break;
      if (poll.count() > 0) control_->throw_if_lost();
      if (clock_.now() > until) break;
      if (poll.count() > 0) {
        std::this_thread::sleep_for(poll);
      } else {
        sched_yield();
      }
    }
    if (status != ncclSuccess) fail(status, operation);
  }

  // Throws the reason for which the group was lost, which is this failure unless an earlier one is known.
  [[noreturn]] void fail(ncclResult_t status, const char* operation) {
    std::string text = "rank " + std::to_string(rank()) + ": NCCL " + operation + ": ";
    if (status == ncclInProgress) {
      text += "not done within " + std::to_string(options_.timeout_ms) + " ms";
    } else {
      const char* detail = ncclGetLastError(comm_);
      text += std::string(ncclGetErrorString(status)) + " (" + (detail != nullptr ? detail : "") + ")";
    }
    control_->throw_if_lost();
    abort(text);
    control_->throw_if_lost();
    throw Error(text);
  }

  const std::unique_ptr<Communicator> control_;
  const NcclOptions options_;
  const cudaStream_t stream_;
  const Clock& clock_;
  ncclComm_t comm_ = nullptr;  // null once it was aborted
  std::vector<Buffer> scratch_;
  std::unique_ptr<PeerMemory> peers_;  // null if tensors are added over NCCL;
  std::string cause_;                  // why so, if that was not asked for
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> control, const NcclOptions& options,
                                                     const Clock& clock) {
  check(control != nullptr, "NCCL needs a control communicator");
  return std::make_unique<NcclCommunicator>(std::move(control), options, clock);
}

}  // namespace optserve::comm
