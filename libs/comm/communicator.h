// The collectives of one tensor-parallel group. Every rank calls the same operations in the same order with the same
// sizes. If a peer dies or is too late, every surviving rank throws Error, and the group ends as a whole.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "keys/key_pair.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace optserve::comm {

// residual += the sum of x over the ranks + bias; then out = (residual - mean) / sqrt(var + 1e-5) * gamma + beta per
// row, unless out is empty. bias may be empty. All tensors have one type and are [n, width] or [width].
struct SumAndNorm {
  Tensor x, bias, residual, gamma, beta, out;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int world() const = 0;

  // Replaces x by the sum over the ranks. All ranks add in the same order, so that they get the same bits: groups of
  // CPUs in the order of the ranks, groups of GPUs in an order that depends only on the size and the world.
  virtual void all_reduce_sum(Tensor x) = 0;
  // Does all of `work` at once if it can; false if it has done nothing. Gives the same bits as all_reduce_sum() of x
  // followed by the operations of the backend. What x holds afterwards is undefined.
  virtual bool try_sum_and_norm(const SumAndNorm&) { return false; }
  // Fills out, [world, ...], with the blocks `x` of all ranks in the order of the ranks.
  // out.numel() == world * x.numel().
  virtual void all_gather(Tensor x, Tensor out) = 0;
  // Copies `x` of rank `root` into `x` of the others.
  virtual void broadcast(Tensor x, int root) = 0;
  // Sends the bytes of rank `root`, which are in host memory, to the others and replaces what their vectors hold. An
  // idle group waits in this call, so there is no time limit while the root lives.
  virtual void broadcast_bytes(std::vector<uint8_t>& bytes, int root) = 0;
  // Returns the smallest `value` of all ranks, on every rank. It goes through host memory, unlike the tensors of a
  // group of GPUs.
  virtual int64_t all_reduce_min(int64_t value);
  // Returns when every rank has called it. Ranks that have loaded their weights wait here for the others, so there is
  // no time limit while all of them live.
  virtual void barrier() = 0;
  // Makes every pending and later operation on every rank throw Error(reason).
  virtual void abort(const std::string& reason) = 0;
  // Throws Error if the group was aborted or a peer is known to be dead. Does not wait: it is meant for loops that wait
  // for something else.
  virtual void throw_if_lost() {}
  // Throws Error if an enqueued collective has given up waiting for a peer, so that its results are undefined. Does not
  // wait.
  virtual void throw_if_given_up() {}
  // How tensors are summed, and why not in a faster way, for logs; empty if there is only one way.
  struct Way {
    std::string name = {};
    std::string cause = {};
    bool is_peer_memory = false;
  };
  virtual Way way() const { return {}; }
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
// Creates the memory for one start of a group, without mapping it. The descriptor is close-on-exec, so the supervisor
// clears that flag in the ranks that it starts. Throws Error.
ProcessGroupMemory create_process_group_memory(int world);
// In all_reduce_sum, all_gather and broadcast a rank waits at most `timeout_ms` for a peer; then it throws Error and
// aborts the group. Every operation notices within a fraction of a second that a peer has died. Does not own
// `memory.fd`. `clock` outlives the result.
std::unique_ptr<Communicator> make_process_communicator(const ProcessGroupMemory& memory, int rank, int world,
                                                        int timeout_ms, const Clock& clock);

// Ranks as processes on any hosts, over TCP, for tensors in host memory. With a key of the group, only who has it can
// be a rank, and everything that the ranks exchange is encrypted and authenticated. Without one the network must be
// trusted: ranks are identified only to detect mistakes.
struct TcpGroupOptions {
  std::string host;  // an address of rank 0's host, on which it listens until all other ranks have connected
  int port = 0;
  std::string group;  // text on which all ranks must agree; the refusal of a different one names both
  std::shared_ptr<const keys::SecretKey> key = {};  // the same on all ranks; nullptr: there is none
  int rank = 0;
  int world = 1;
  int meet_timeout_ms = 60'000;  // for all ranks to connect
  int timeout_ms = 60'000;       // see make_process_communicator()
  // Called on the communicator's own thread when the group has been lost for a second and this rank still holds its
  // communicator. The rank then hangs somewhere else, and its process should end. May be empty.
  std::function<void(const std::string& reason)> on_stuck;
};
// Returns when all ranks have connected. Throws Error. A rank notices the death of a peer at once, whatever it is doing
// itself, and the death of a peer's host after about 15 s. `clock` outlives the result.
std::unique_ptr<Communicator> make_tcp_communicator(const TcpGroupOptions& options, const Clock& clock);

// How the GPUs of a group add their tensors.
enum class Collectives {
  kNccl,
  kPeer,  // through memory that each GPU writes in the others (comm/nccl_peer_memory.h)
  kAuto,  // kPeer if it works on every rank, otherwise kNccl
};

// Ranks with a GPU each, over NCCL and peer memory. Collectives of tensors are enqueued on `stream` and return before
// they are done, so that they keep their order among the kernels of the backend and can be recorded in its graphs. Each
// tensor must be contiguous and on the device. Everything else goes through `control`, another communicator of the same
// ranks.
struct NcclOptions {
  int device = 0;           // index
  void* stream = nullptr;   // cudaStream_t
  int timeout_ms = 60'000;  // for the setup, and for enqueuing (not executing) a collective
  // Adds in the order of the ranks and rounds once. Otherwise the order is NCCL's, which depends on the number of
  // elements, so that a row's sum depends on what else is in the batch.
  bool sum_in_order = false;
  // `allocate` returns device memory and is required for sum_in_order and peer memory; `allocate_host`, for peer
  // memory, returns page-locked host memory.
  std::function<Buffer(size_t bytes)> allocate = {};
  std::function<Buffer(size_t bytes)> allocate_host = {};
  Collectives collectives = Collectives::kNccl;
  bool one_host = true;          // all ranks are on one host; otherwise kAuto means kNccl
  int peer_timeout_ms = 60'000;  // how long a kernel waits for a peer's part of a sum over peer memory
  // The calling thread enqueues collectives itself, instead of waiting for a thread of NCCL that does it. This is
  // faster, but then neither the setup nor enqueuing ends at the timeout.
  bool blocking = false;
};
// Before a collective of some size is recorded in a graph, run it once: NCCL makes its connections when it first needs
// them. Destroy graphs that hold collectives before the communicator. `clock` outlives the result. Throws Error; in a
// build without CUDA always.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> control, const NcclOptions& options,
                                                     const Clock& clock);

}  // namespace optserve::comm
