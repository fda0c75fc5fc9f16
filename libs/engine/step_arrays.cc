#include "engine/step_arrays.h"

#include <cstring>

#include "base/check.h"

namespace optserve::engine {

namespace {
constexpr size_t kAlignment = 16;
size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int64_t elements_max(StepArray array, const StepSizes& most) {
  switch (array) {
    case kNewIds:
    case kSlots:
    case kPositions:
    case kKvSlots:
    case kScoreRows:
    case kScoreTargets:
      return most.rows;
    case kContext:
    case kTableRows:
    case kDrawRows:
      return most.sequences;
    case kRowBegin:
      return most.sequences + 1;
    case kTiles:  // each is a sequence and a row; the last tile of a sequence may be short
      return 2 * (most.rows / backend::kAttentionTileRows + most.sequences);
    case kTableUpdates:  // each is a row, a column and a block
      return 3 * most.table_updates;
    case kStepArrayCount:
      break;
  }
  check_failed("size of a step array", std::source_location::current());
}

}  // namespace

size_t step_array_bytes(const StepSizes& most) {
  size_t bytes = aligned(static_cast<size_t>(most.sequences) * sizeof(sampling::PackedSampleRow));
  for (int array = 0; array < kStepArrayCount; ++array) {
    const int64_t elements = elements_max(static_cast<StepArray>(array), most);
    bytes += aligned(static_cast<size_t>(elements) * sizeof(int32_t));
  }
  return bytes;
}

StepArrays::StepArrays(backend::Backend& backend, const StepSizes& most)
    : backend_(backend), device_(backend.allocate(step_array_bytes(most))) {
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
  constexpr auto kRowBytes = static_cast<int64_t>(sizeof(sampling::PackedSampleRow));
  sample_rows_view_ = Tensor(place(sample_rows.data(), sample_rows.size() * sizeof(sampling::PackedSampleRow)),
                             DType::kU8, {rows, kRowBytes}, device_.device());
  for (size_t i = 0; i < ints_.size(); ++i) {
    int_views_[i] = Tensor(place(ints_[i].data(), ints_[i].size() * sizeof(int32_t)), DType::kI32,
                           {static_cast<int64_t>(ints_[i].size())}, device_.device());
  }
  backend_.upload(device_.view(DType::kU8, {static_cast<int64_t>(offset)}), host);
}

}  // namespace optserve::engine
