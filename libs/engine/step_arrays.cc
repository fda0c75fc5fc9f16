#include "engine/step_arrays.h"

#include <cstring>

#include "base/check.h"

namespace optserve::engine {

namespace {
constexpr size_t kAlignment = 16;
size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
}  // namespace

StepArrays::StepArrays(Backend& backend, size_t bytes_max)
    : backend_(backend), device_(backend.allocate(bytes_max + (kStepArrayCount + 1) * kAlignment)) {
  for (Buffer& staging : staging_) staging = backend.allocate_host(device_.bytes());
}

void StepArrays::clear() {
  sample_rows.clear();
  for (auto& array : ints_) array.clear();
}

void StepArrays::upload() {
  turn_ = (turn_ + 1) % staging_.size();
  auto* host = static_cast<std::byte*>(staging_[turn_].data());
  auto* device = static_cast<std::byte*>(device_.data());
  size_t offset = 0;
  const auto place = [&](const void* source, size_t bytes) -> void* {
    check(offset + bytes <= device_.bytes(), "arrays of a step exceed their memory");
    if (bytes > 0) std::memcpy(host + offset, source, bytes);
    void* const at = device + offset;
    offset += aligned(bytes);
    return at;
  };
  const auto rows = static_cast<int64_t>(sample_rows.size());
  constexpr auto kRowBytes = static_cast<int64_t>(sizeof(PackedSampleRow));
  sample_rows_view_ = Tensor(place(sample_rows.data(), sample_rows.size() * sizeof(PackedSampleRow)), DType::kU8,
                             {rows, kRowBytes}, device_.device());
  for (size_t i = 0; i < ints_.size(); ++i) {
    int_views_[i] = Tensor(place(ints_[i].data(), ints_[i].size() * sizeof(int32_t)), DType::kI32,
                           {static_cast<int64_t>(ints_[i].size())}, device_.device());
  }
  backend_.upload(device_.view(DType::kU8, {static_cast<int64_t>(offset)}), host);
}

}  // namespace optserve::engine
