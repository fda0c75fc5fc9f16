#include "comm/nccl_peer_memory.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "kernels/elementwise.h"

namespace optserve::comm {

namespace {

using kernels::Element;

// The size of each of a rank's two buffers: with two ranks, a collective of 16 MiB takes one launch.
constexpr int64_t kBufferBytes = int64_t{32} << 20;
constexpr size_t kCauseBytes = 256;
constexpr uint64_t kTestLimitNs = 10'000'000'000;

void expect(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw Error(std::string("peer memory: ") + what + ": " + cudaGetErrorString(status));
}

std::string failed(const std::string& what, cudaError_t status) {
  (void)cudaGetLastError();
  return what + ": " + cudaGetErrorString(status);
}

// What a rank tells the others about its memory.
struct InboxOffer {
  std::array<char, 32> device{};  // its address on the bus
  cudaIpcMemHandle_t inbox{};
  int64_t buffer_bytes = kBufferBytes;
};

Tensor bytes_of(void* data, size_t size) { return Tensor(data, DType::kU8, {static_cast<int64_t>(size)}); }

// Returns, on all ranks alike, the cause of the first rank that has one; empty if none has. All ranks call it.
std::string first_cause(Communicator& control, const std::string& mine) {
  std::array<char, kCauseBytes> own{};
  std::memcpy(own.data(), mine.data(), std::min(mine.size(), kCauseBytes - 1));
  std::vector<char> all(kCauseBytes * static_cast<size_t>(control.world()));
  control.all_gather(bytes_of(own.data(), own.size()), bytes_of(all.data(), all.size()));
  for (size_t rank = 0; rank < static_cast<size_t>(control.world()); ++rank) {
    const std::string cause = all.data() + rank * kCauseBytes;
    if (!cause.empty()) return "rank " + std::to_string(rank) + ": " + cause;
  }
  return {};
}

std::optional<Element> element_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return Element::kF32;
    case DType::kF16:
      return Element::kF16;
    case DType::kBF16:
      return Element::kBF16;
    default:
      return std::nullopt;
  }
}

kernels::NormArgs norm_args(const SumAndNorm& work) {
  const int64_t width = work.x.dim(work.x.ndim() - 1);
  return {.element = *element_of(work.x.dtype()),
          .x = work.x.raw(),
          .bias = work.bias.raw(),
          .residual = work.residual.raw(),
          .gamma = work.gamma.raw(),
          .beta = work.beta.raw(),
          .out = work.out.raw(),
          .num_rows = width == 0 ? 0 : work.x.numel() / width,
          .width = width};
}

}  // namespace

PeerMemory::PeerMemory(Communicator& control, const PeerMemoryOptions& options) : options_(options) {
  group_.rank = control.rank();
  group_.world = control.world();
  group_.buffer_bytes = kBufferBytes;
}

PeerMemory::~PeerMemory() {
  (void)cudaStreamSynchronize(options_.stream);
  for (void* memory : opened_) (void)cudaIpcCloseMemHandle(memory);
}

std::unique_ptr<PeerMemory> PeerMemory::create(Communicator& control, const PeerMemoryOptions& options,
                                               const Reference& reference, std::string& cause) {
  if (control.world() > kernels::kPeersMax) {
    cause = "more than " + std::to_string(kernels::kPeersMax) + " ranks";
    return nullptr;
  }
  std::unique_ptr<PeerMemory> memory(new PeerMemory(control, options));
  // No rank may go on alone, since it would wait for peers in vain.
  std::vector<uint8_t> offers;
  cause = first_cause(control, memory->offer(control, offers));
  if (cause.empty()) cause = first_cause(control, memory->open_peers(offers));
  memory->group_.limit_ns = kTestLimitNs;
  // Some sizes fill a pack, the blocks of a launch, or several turns of the buffers, and others do not.
  for (const Element element : {Element::kF16, Element::kBF16, Element::kF32}) {
    for (const int64_t count : {1, 7168, 8191, 65'536, 1'000'003}) {
      if (cause.empty()) cause = first_cause(control, memory->test_sum(reference, element, count));
    }
  }
  memory->group_.limit_ns = static_cast<uint64_t>(options.timeout_ms) * 1'000'000;
  return cause.empty() ? std::move(memory) : nullptr;
}

std::string PeerMemory::offer(Communicator& control, std::vector<uint8_t>& offers) {
  InboxOffer offer;
  std::string cause;
  const size_t inbox_bytes = 2 * static_cast<size_t>(kBufferBytes);
  try {
    inbox_ = options_.allocate(inbox_bytes);
    state_ = options_.allocate(sizeof(kernels::PeerState));
    control_ = options_.allocate_host(sizeof(kernels::PeerControl));
    std::memset(control_.data(), 0, control_.bytes());
    expect(cudaMemsetAsync(inbox_.data(), 0xff, inbox_bytes, options_.stream), "cudaMemset");
    expect(cudaMemsetAsync(state_.data(), 0, state_.bytes(), options_.stream), "cudaMemset");
    expect(cudaStreamSynchronize(options_.stream), "cudaStreamSynchronize");
    expect(cudaDeviceGetPCIBusId(offer.device.data(), static_cast<int>(offer.device.size()), options_.device),
           "cudaDeviceGetPCIBusId");
    void* mapped = nullptr;
    expect(cudaHostGetDevicePointer(&mapped, control_.data(), 0), "cudaHostGetDevicePointer");
    group_.control = static_cast<kernels::PeerControl*>(mapped);
    group_.state = static_cast<kernels::PeerState*>(state_.data());
    expect(cudaIpcGetMemHandle(&offer.inbox, inbox_.data()), "cudaIpcGetMemHandle");
  } catch (const Error& error) {
    (void)cudaGetLastError();
    cause = error.what();
  }
  offers.resize(sizeof offer * static_cast<size_t>(group_.world));
  control.all_gather(bytes_of(&offer, sizeof offer), bytes_of(offers.data(), offers.size()));
  return cause;
}

std::string PeerMemory::open_peers(const std::vector<uint8_t>& offers) {
  for (int peer = 0; peer < group_.world; ++peer) {
    void*& inbox = group_.inbox[peer];
    if (peer == group_.rank) {
      inbox = inbox_.data();
      continue;
    }
    InboxOffer offer;
    std::memcpy(&offer, offers.data() + static_cast<size_t>(peer) * sizeof offer, sizeof offer);
    offer.device.back() = '\0';
    const std::string where = "memory of rank " + std::to_string(peer) + " on " + offer.device.data();
    if (offer.buffer_bytes != kBufferBytes) return where + " is not as this build has it";
    int device = -1, can_access = 0;
    if (const cudaError_t status = cudaDeviceGetByPCIBusId(&device, offer.device.data()); status != cudaSuccess) {
      return failed("the device of the " + where, status);
    }
    (void)cudaDeviceCanAccessPeer(&can_access, options_.device, device);
    if (device != options_.device && can_access == 0) return "no peer access to the " + where;
    const cudaError_t status = cudaIpcOpenMemHandle(&inbox, offer.inbox, cudaIpcMemLazyEnablePeerAccess);
    if (status != cudaSuccess) return failed("to open the " + where, status);
    opened_.push_back(inbox);
  }
  return {};
}

std::string PeerMemory::test_sum(const Reference& reference, Element element, int64_t count) {
  const DType dtype = element == Element::kF32 ? DType::kF32 : element == Element::kBF16 ? DType::kBF16 : DType::kF16;
  const size_t bytes = static_cast<size_t>(count) * dtype_bytes(dtype);
  const Buffer x = options_.allocate(bytes), expected = options_.allocate(bytes);
  const kernels::RandomBlock block{.key = 0x70656572u + static_cast<uint64_t>(group_.rank + 97 * count),
                                   .reach = static_cast<float>(1 << group_.rank),
                                   .rows = 1,
                                   .cols = count,
                                   .whole_cols = count};
  expect(kernels::fill_random(block, element, element, x.data(), options_.stream), "fill_random");
  expect(cudaMemcpyAsync(expected.data(), x.data(), bytes, cudaMemcpyDeviceToDevice, options_.stream), "cudaMemcpy");
  reference(expected.view(dtype, {count}));
  expect(kernels::peer_sum(group_, element, x.data(), count, options_.stream), "peer_sum");
  std::vector<char> found(bytes), wanted(bytes);
  expect(cudaMemcpyAsync(found.data(), x.data(), bytes, cudaMemcpyDeviceToHost, options_.stream), "cudaMemcpy");
  expect(cudaMemcpyAsync(wanted.data(), expected.data(), bytes, cudaMemcpyDeviceToHost, options_.stream), "cudaMemcpy");
  expect(cudaStreamSynchronize(options_.stream), "cudaStreamSynchronize");
  if (std::string cause = given_up(); !cause.empty()) return cause;
  if (found == wanted) return {};
  return "a sum of " + std::to_string(count) + " " + std::string(dtype_name(dtype)) + " differs from NCCL's";
}

// In larger groups, NCCL sends less for large tensors.
bool PeerMemory::takes(const Tensor& x) const {
  const auto element = element_of(x.dtype());
  return element && kernels::peer_sum_pays(group_, *element, x.raw(), x.numel());
}

void PeerMemory::sum(const Tensor& x) {
  expect(kernels::peer_sum(group_, *element_of(x.dtype()), x.raw(), x.numel(), options_.stream), "peer_sum");
}

bool PeerMemory::takes(const SumAndNorm& work) const {
  return element_of(work.x.dtype()) && work.x.contiguous() && work.residual.contiguous() &&
         (work.out.empty() || work.out.contiguous()) && kernels::can_peer_add_and_norm(group_, norm_args(work));
}

void PeerMemory::sum_and_norm(const SumAndNorm& work) {
  expect(kernels::peer_add_and_norm(group_, norm_args(work), options_.stream), "peer_add_and_norm");
}

void PeerMemory::stop() { std::atomic_ref(static_cast<kernels::PeerControl*>(control_.data())->stop).store(1); }

std::string PeerMemory::given_up() const {
  const uint32_t why = std::atomic_ref(static_cast<kernels::PeerControl*>(control_.data())->gave_up).load();
  if (why == 0) return {};
  const std::string rank = "rank " + std::to_string(group_.rank);
  if (why == kernels::kGaveUpStopped) return rank + ": a sum over the ranks was stopped";
  return rank + ": a rank did not bring its part of a sum within " + std::to_string(group_.limit_ns / 1'000'000) +
         " ms";
}

}  // namespace optserve::comm
