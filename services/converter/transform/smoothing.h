// Moves magnitude from activations to weights before they are rounded (SmoothQuant, arXiv 2211.10438): what produces
// input channel j of a large matrix is divided by s_j, and column j of the matrix is multiplied by it. The model
// computes the same.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "converter/reader/caged_model.h"
#include "converter/transform/activation_ranges.h"
#include "converter/weight_rows.h"
#include "converter/write/convert.h"

namespace optserve::converter {

// s_j = max|x_j|^alpha / max|w_j|^(1 - alpha), kept within 2^-10 to 2^10; 1 where a channel or a column is all zero, or
// not finite.
std::vector<float> smoothing_factors(std::span<const float> inputs, std::span<const float> columns, double alpha);

// The factors of one layer's matrices, in the order of kLargeMatrices. A matrix without factors stays as it is, and so
// does what produces its inputs.
using LayerFactors = std::array<std::vector<float>, kLargeMatrices.size()>;

// The rows of a source with the factors folded in:
//   qkv, up   into the norm before, where that norm feeds nothing else (norms before the blocks)
//   out       into the rows of v, as attention is linear in v
//   down      into the rows of up, as relu(x / s) = relu(x) / s
class SmoothedRows final : public WeightRows {
 public:
  // `source` outlives the object.
  SmoothedRows(const WeightRows& source, std::vector<LayerFactors> layers);
  SmoothedRows(SmoothedRows&&) = default;  // changes_ points into what layers_ owns
  SmoothedRows(const SmoothedRows&) = delete;

  const model_spec::OptConfig& config() const override { return source_.config(); }
  // F32 where something is folded in.
  DType dtype(const model_spec::TensorSpec& spec) const override;
  void read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                 std::span<std::byte> out) const override;

 private:
  struct Change {
    const std::vector<float>* columns = nullptr;   // multiplied
    const std::vector<float>* divisors = nullptr;  // of the rows from first_row on
    int64_t first_row = 0;
  };
  void change_layer(int64_t layer, const LayerFactors& factors);
  void add(const std::string& name, const Change& change);

  const WeightRows& source_;
  std::vector<LayerFactors> layers_;
  std::map<std::string, Change> changes_;
};

// The factors of a whole model: one pass over the large matrices of the source. `goes_on` is asked once a matrix;
// nullopt if it says no. Throws Error.
std::optional<std::vector<LayerFactors>> find_factors(const WeightRows& source, const ActivationRanges& ranges,
                                                      double alpha, const std::function<bool()>& goes_on);

// What a conversion is asked to smooth with, or nothing.
struct SmoothedSource {
  checkpoint::Smoothing smoothing;
  SmoothedRows rows;
  std::string warning;  // names what is not smoothed; may be empty
};
// Refuses files that are not ranges of this model, an alpha outside of 0 to 1, and cancellation by on_progress.
Result<std::optional<SmoothedSource>> open_smoothing(const ConvertOptions& options, const CagedModel& source);

}  // namespace optserve::converter
