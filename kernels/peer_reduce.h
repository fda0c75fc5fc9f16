// Sums over the GPUs of a group through memory that each GPU can write in the others: a rank stores its part where the
// other ranks look for it, and adds what it finds in its own memory. Sums are in fp32 in the order of the ranks and
// rounded once, so that an element's bits depend on nothing but the parts, and are the same on every rank.
#pragma once

#include "kernels/elementwise.h"

namespace optserve::kernels {

inline constexpr int kPeersMax = 8;

// What a rank's device keeps between collectives; zeros at the start.
struct PeerState {
  uint32_t turn = 0;     // which of the two buffers the next collective uses
  uint32_t arrived = 0;  // blocks of the running collective that know it
  uint32_t gave_up = 0;  // as PeerControl's, for the kernels that follow
};

// In host memory that the device reads and writes; zeros at the start.
struct PeerControl {
  uint32_t stop = 0;     // set by the host: who waits for a peer gives up
  uint32_t gave_up = 0;  // set by the device: what collectives have given since then is worth nothing
};
inline constexpr uint32_t kGaveUpStopped = 1, kGaveUpLate = 2;

struct PeerGroup {
  int rank = 0;
  int world = 1;
  // Of each rank, as this device sees it: two buffers of buffer_bytes, all bits set at the start. A multiple of 4096.
  void* inbox[kPeersMax] = {};
  int64_t buffer_bytes = 0;
  PeerState* state = nullptr;      // on this device
  PeerControl* control = nullptr;  // as this device sees it
  uint64_t limit_ns = 0;           // how long a collective waits for a peer
};

// Every rank makes the same calls with the same sizes, each on one stream. A collective that gives up ends with
// undefined results; see PeerControl. Launches on `stream`, allocates nothing, can be captured into a graph, and
// returns cudaGetLastError(). At most one collective of a group may run at a time on a device, and nothing else there
// may wait for it to begin.

// Whether peer_sum() takes x, and a library that sends each part once is not expected to be faster.
bool peer_sum_pays(const PeerGroup& group, Element element, const void* x, int64_t count);
// x[count] = the sum over the ranks; any count, which is cut into launches. `x` is aligned to 16 bytes.
cudaError_t peer_sum(const PeerGroup& group, Element element, void* x, int64_t count, cudaStream_t stream);

// How peer_add_and_norm() moves rows: each rank stores its rows in all others, or each adds a share of the rows and
// stores the sums in all others, which is less to store in groups of more than two and takes a round more.
enum class PeerRows : uint8_t { kFastest, kOneRound, kTwoRounds };
// add_and_norm() of the sum of args.x over the ranks, which is rounded before it is added; the same bits as peer_sum()
// and add_and_norm(). args.x stays as it is.
bool can_peer_add_and_norm(const PeerGroup& group, const NormArgs& args);
cudaError_t peer_add_and_norm(const PeerGroup& group, const NormArgs& args, cudaStream_t stream,
                              PeerRows rows = PeerRows::kFastest);

}  // namespace optserve::kernels
