// The collectives of one tensor-parallel group. Every rank calls the same operations in the same order with the same
// sizes. A dead or late peer is an Error thrown on every surviving rank; the group then ends as a unit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace optserve::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int world() const = 0;

  // x becomes the sum over ranks. Each element is added in one order, so that all ranks hold the same bits; groups of
  // CPUs add in rank order, groups of devices in an order that depends on the size and the world only.
  virtual void all_reduce_sum(Tensor x) = 0;
  // out: [world, ...]: the blocks `x` of all ranks, in rank order; out.numel() == world * x.numel().
  virtual void all_gather(Tensor x, Tensor out) = 0;
  // x of `root` is copied to x of the others.
  virtual void broadcast(Tensor x, int root) = 0;
  // Bytes of `root` reach the others; only root's content matters, the others' vector is replaced. Host memory.
  // An idle group waits here: there is no time limit while the root lives.
  virtual void broadcast_bytes(std::vector<uint8_t>& bytes, int root) = 0;
  // The smallest `value` of all ranks, on every rank. Host memory, unlike the tensors of a group of devices.
  virtual int64_t all_reduce_min(int64_t value);
  // Ranks meet here after loading: there is no time limit while all peers live.
  virtual void barrier() = 0;
  // Makes every pending and later operation on every rank throw Error(reason).
  virtual void abort(const std::string& reason) = 0;
  // Throws Error if the group is known to be lost: aborted, or a peer has died. For loops that wait for something else;
  // waits for nothing itself.
  virtual void throw_if_lost() {}
};

// The group of one: all_gather and broadcast copy, all_reduce_sum is the identity.
std::unique_ptr<Communicator> make_solo_communicator();
// `world` communicators for threads of one process; element r belongs to rank r.
std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int world);

// Ranks as processes of one host over an inherited shared-memory file (memfd).
struct ProcessGroupMemory {
  int fd = -1;  // owned by the caller
  size_t bytes = 0;
};
// Creates the memory for one start of a group, mapping nothing. The descriptor is close-on-exec: the supervisor clears
// that in the ranks it starts (posix_spawn's adddup2 onto the same number does). Throws Error.
ProcessGroupMemory create_process_group_memory(int world);
// `timeout_ms` bounds the wait for a peer within all_reduce_sum, all_gather and broadcast; then Error on this rank and
// abort for the others. A peer that died is noticed within a fraction of a second by every operation. Does not own
// `memory.fd`.
std::unique_ptr<Communicator> make_process_communicator(const ProcessGroupMemory& memory, int rank, int world,
                                                        int timeout_ms);

// Ranks as processes on any hosts, over TCP; host memory. The network is trusted: nothing is encrypted, and only
// mistakes are refused.
struct TcpGroupOptions {
  std::string host;  // rank 0 listens on this address of its host until all are there; the others connect to it
  int port = 0;
  std::string group;  // what all ranks must agree on, in words; a rank of another group is refused with both
  int rank = 0;
  int world = 1;
  int meet_timeout_ms = 60'000;  // until all ranks are there
  int timeout_ms = 60'000;       // as of make_process_communicator()
  // Called from a thread of the communicator when the group has been lost for a second and this rank still holds its
  // communicator: it hangs somewhere else, and its process should end. Empty: nothing is done.
  std::function<void(const std::string& reason)> on_stuck;
};
// Blocks until all ranks are there. Throws Error. A peer's death is noticed at once whatever this rank is doing; that
// of its host after some 15 s.
std::unique_ptr<Communicator> make_tcp_communicator(const TcpGroupOptions& options);

// Ranks with a GPU each, over NCCL: tensor collectives are enqueued on `stream` and return before they are done, so
// that they are ordered with the kernels of the backend and can be recorded in its graphs. Each tensor must lie on the
// device, contiguous. The rest goes through the `control` communicator of the same ranks.
struct NcclOptions {
  int device = 0;           // index
  void* stream = nullptr;   // cudaStream_t
  int timeout_ms = 60'000;  // of the setup, and of issuing (not executing) a collective
  // Sums are made in the order of the ranks, with one rounding: NCCL's own order depends on the number of elements.
  bool sum_in_order = false;
  std::function<Buffer(size_t bytes)> allocate = {};  // memory of the device, needed for that
  // Collectives are enqueued by the caller rather than by a thread of NCCL that the caller waits for: quicker, but
  // neither setup nor issuing ends at the timeout then.
  bool blocking = false;
};
// A size that will be recorded in a graph is run once before: NCCL connects when it first needs to. Graphs that hold
// collectives are destroyed before the communicator. Throws Error; without CUDA in the build, always.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> control, const NcclOptions& options);

}  // namespace optserve::comm
