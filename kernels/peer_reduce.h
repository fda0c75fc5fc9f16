// Sums over the GPUs of a group, for which each GPU writes to the memory of the others: a rank stores its part where
// the other ranks look for it, and adds what it finds in its own memory. Sums are in fp32, in the order of the ranks,
// and rounded once, so that an element's bits depend on the parts alone and are the same on every rank.
#pragma once

#include "kernels/elementwise.h"

namespace optserve::kernels {

inline constexpr int kPeersMax = 8;

// What a rank's device keeps between collectives; zeros at the start.
struct PeerState {
  uint32_t turn = 0;     // which of the two buffers the next collective uses
  uint32_t arrived = 0;  // how many blocks of the running collective have read `turn`
  uint32_t gave_up = 0;  // the same as in PeerControl, for the kernels that follow
};

// In host memory that the device reads and writes; zeros at the start.
struct PeerControl {
  uint32_t stop = 0;     // set by the host: threads that wait for a peer give up
  uint32_t gave_up = 0;  // set by the device: results of collectives since then are undefined
};
inline constexpr uint32_t kGaveUpStopped = 1, kGaveUpLate = 2;

struct PeerGroup {
  int rank = 0;
  int world = 1;
  // Each rank's inbox, at the address that this device sees: two buffers of buffer_bytes, a multiple of 4096. All bits
  // are set at the start.
  void* inbox[kPeersMax] = {};
  int64_t buffer_bytes = 0;
  PeerState* state = nullptr;      // on this device
  PeerControl* control = nullptr;  // at the address that this device sees
  uint64_t limit_ns = 0;           // how long a collective waits for a peer
};

// Every rank makes the same calls with the same sizes, and each rank makes all of its calls on one stream. A collective
// that gives up ends with undefined results; see PeerControl. Launches on `stream`, allocates nothing, can be captured
// into a graph, and returns cudaGetLastError(). At most one collective of a group may run at a time on a device, and
// nothing else there may wait for it to begin.

// Whether peer_sum() accepts x and a library such as NCCL, which sends each part once, is not expected to be faster.
bool peer_sum_pays(const PeerGroup& group, Element element, const void* x, int64_t count);
// x[count] = the sum over the ranks; for any count, with as many launches as it needs. `x` is aligned to 16 bytes.
cudaError_t peer_sum(const PeerGroup& group, Element element, void* x, int64_t count, cudaStream_t stream);

// How peer_add_and_norm() moves rows. One round: each rank stores its rows in all others. Two rounds: each rank adds a
// share of the rows and stores the sums in all others, which stores less in groups of more than two ranks but takes one
// more round.
enum class PeerRows : uint8_t { kFastest, kOneRound, kTwoRounds };
// Computes add_and_norm() of the sum of args.x over the ranks. The sum is rounded before it is added, so the bits are
// those of peer_sum() followed by add_and_norm(). args.x is not changed.
bool can_peer_add_and_norm(const PeerGroup& group, const NormArgs& args);
cudaError_t peer_add_and_norm(const PeerGroup& group, const NormArgs& args, cudaStream_t stream,
                              PeerRows rows = PeerRows::kFastest);

}  // namespace optserve::kernels
