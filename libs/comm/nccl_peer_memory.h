// Sums over the GPUs of one host without NCCL: each rank has memory that the others write over NVLink or PCIe, and a
// kernel of its own that stores and waits (kernels/peer_reduce.h).
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "kernels/peer_reduce.h"

namespace optserve::comm {

struct PeerMemoryOptions {
  int device = 0;  // index
  cudaStream_t stream = nullptr;
  int timeout_ms = 60'000;  // how long a kernel waits for a peer
  std::function<Buffer(size_t bytes)> allocate, allocate_host;
};

class PeerMemory {
 public:
  // Adds x[count] over the ranks in a different way: gathers the ranks' blocks and adds them in order.
  using Reference = std::function<void(Tensor x)>;

  // Exchanges memory with the other ranks over `control`, and compares sums with those of `reference` bit by bit. All
  // ranks call it. Either all get a result or none does; then the cause of the first failure is known here. Throws
  // Error when the group is lost.
  static std::unique_ptr<PeerMemory> create(Communicator& control, const PeerMemoryOptions& options,
                                            const Reference& reference, std::string& cause);
  // To be called after the last collective has ended or was stopped.
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  // Whether sum() accepts x and is not expected to be slower than NCCL. It gives the same answer on all ranks, since
  // all have the same sizes and allocate tensors in the same way.
  bool takes(const Tensor& x) const;
  void sum(const Tensor& x);
  bool takes(const SumAndNorm& work) const;
  void sum_and_norm(const SumAndNorm& work);

  // Ends the kernels that wait for peers, now and later.
  void stop();
  // Why kernels have ended without their peers; empty while none has.
  std::string given_up() const;

 private:
  PeerMemory(Communicator& control, const PeerMemoryOptions& options);
  // Each returns why it failed on this rank; empty if it did not.
  std::string offer(Communicator& control, std::vector<uint8_t>& offers);
  std::string open_peers(const std::vector<uint8_t>& offers);
  std::string test_sum(const Reference& reference, kernels::Element element, int64_t count);

  PeerMemoryOptions options_;
  kernels::PeerGroup group_;
  Buffer inbox_, state_, control_;
  std::vector<void*> opened_;  // memory of other ranks
};

}  // namespace optserve::comm
