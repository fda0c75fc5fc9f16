// Where the blocks of a model's tensors come from: a sharded checkpoint, or a random generator.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "model_spec/opt_tensors.h"
#include "quant/quant_format.h"
#include "tensor/dtype.h"
#include "tensor/random_block.h"

namespace optserve::checkpoint {
class CheckpointReader;
}

namespace optserve::engine {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual const model_spec::OptConfig& config() const = 0;
  virtual const std::vector<model_spec::TensorSpec>& tensors() const = 0;
  virtual DType dtype() const = 0;  // of every block that is not quantised
  // The format of the blocks of `spec`: plain in dtype(), or quantised with scales.
  virtual quant::QuantFormat format(const model_spec::TensorSpec& spec) const = 0;
  // Fills `out` with the block that `rank` of `world` has of `spec`, an entry of tensors(), row-major, in format().
  // Throws Error when a file cannot be read.
  virtual void read_block(const model_spec::TensorSpec& spec, int rank, int world, std::span<std::byte> out) const = 0;
  // The scales of that block, if it is quantised (quant/quantise.h).
  virtual void read_scales(const model_spec::TensorSpec& spec, int rank, int world, std::span<float> out) const = 0;
  // If values are generated, the rule that generates the block, so that a device can do it itself.
  virtual std::optional<RandomBlock> random_block(const model_spec::TensorSpec& spec, int rank, int world) const = 0;
};

// `reader` must outlive the source.
std::unique_ptr<WeightSource> make_checkpoint_source(const checkpoint::CheckpointReader& reader);

// Every element is a function of (seed, tensor name, place in the whole tensor), so that any rank of any group gets its
// part of the same model. Magnitudes are such that activations stay near one in every layer; norms, biases and
// positions are random too. With a quantised `format` the large matrices of the layers are codes
// (quant/random_codes.h). `up_bias` is the mean of the biases before the ReLU, whose inputs have a standard deviation
// of about one: 0 makes half of its outputs zeros, -1.68 makes 95% of them zeros, as trained models have.
std::unique_ptr<WeightSource> make_random_source(const model_spec::OptConfig& config, uint64_t seed, DType dtype,
                                                 std::optional<quant::QuantFormat> format = {}, float up_bias = 0);

}  // namespace optserve::engine
