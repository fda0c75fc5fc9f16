// Any bytes as a pickle: either every view fits its storage, or the pickle is refused.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "checkpoint/torch/pickle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::checkpoint;
  PickleLimits limits;
  limits.opcodes = 100'000;
  limits.arena_bytes = 16 << 20;
  const auto document = read_pickle({reinterpret_cast<const char*>(data), size}, "fuzz", limits);
  if (!document.ok()) return 0;
  for (const PickleTensor& tensor : document.value().tensors()) {
    __int128 last = tensor.offset;
    bool is_empty = false;
    for (size_t axis = 0; axis < tensor.shape.size(); ++axis) {
      is_empty = is_empty || tensor.shape[axis] == 0;
      last += static_cast<__int128>(tensor.shape[axis] - 1) * tensor.stride[axis];
    }
    const int64_t numel = document.value().storages().at(tensor.storage).numel;
    optserve::check(tensor.offset >= 0 && (is_empty || last < numel), "view inside its storage");
  }
  document.value().find(document.value().root(), "model");
  return 0;
}
