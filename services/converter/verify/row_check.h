// Judges whether stored weights are those of a source, rounded as their format rounds. Pure. The rule is written down
// here once more, apart from the code that quantises, so that a fault there shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/quant_format.h"
#include "tensor/dtype.h"

namespace optserve::converter {

// How a tensor is stored: plain in `dtype`, or rounded to it and then quantised.
struct StoredAs {
  DType dtype = DType::kF16;
  std::optional<quant::Quantisation> quantisation{};
};

// What the comparison of one tensor's rows found.
struct RowFindings {
  uint64_t weights = 0;
  uint64_t wrong = 0;        // weights, or scales, that are not those of the source
  std::string first_wrong;   // "row 3, column 7: 0.25, expected 0.5 within 0.002"
  double worst = 0;          // the largest error as a part of what rounding may do; 0: all equal
  double error_squares = 0;  // of rounded - source, over all finite weights that are not wrong
  double source_squares = 0;
};

class RowCheck {
 public:
  explicit RowCheck(const StoredAs& stored) : stored_(stored) {}

  // The whole row of the source that the next compare() calls are about.
  void begin_row(int64_t row, std::span<const float> source);
  // Columns from `col` on, as a shard stores them: their values, and the scales of its groups or of the whole row.
  void compare(int64_t col, std::span<const std::byte> values, std::span<const float> scales);

  const RowFindings& findings() const { return findings_; }

 private:
  void compare_plain(int64_t col, std::span<const std::byte> values);
  void compare_quantised(int64_t col, std::span<const std::byte> values, std::span<const float> scales);
  void check_scale(int64_t col, std::span<const float> weights, float scale);
  double allowed(float weight, float found, float scale) const;
  void add_rounding(float source, float rounded);
  template <class Describe>
  void add_wrong(int64_t col, Describe describe);

  StoredAs stored_;
  RowFindings findings_;
  int64_t row_ = 0;
  std::span<const float> source_;
  std::vector<std::byte> rounded_;  // the row in dtype
  std::vector<float> weights_;      // the same, widened
  std::vector<float> found_;
};

}  // namespace optserve::converter
