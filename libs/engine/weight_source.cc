#include "engine/weight_source.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "checkpoint/reader.h"
#include "quant/random_codes.h"

namespace optserve::engine {

namespace {

using model_spec::TensorSpec;

class CheckpointSource final : public WeightSource {
 public:
  explicit CheckpointSource(const checkpoint::CheckpointReader& reader) : reader_(reader) {}

  const model_spec::OptConfig& config() const override { return reader_.config(); }
  const std::vector<TensorSpec>& tensors() const override { return reader_.tensors(); }
  DType dtype() const override { return reader_.dtype(); }
  void read_block(const TensorSpec& spec, int rank, int world, std::span<std::byte> out) const override {
    reader_.read_block(spec, rank, world, out);
  }
  quant::QuantFormat format(const TensorSpec& spec) const override { return reader_.format(spec); }
  void read_scales(const TensorSpec& spec, int rank, int world, std::span<float> out) const override {
    reader_.read_scales(spec, rank, world, out);
  }
  std::optional<RandomBlock> random_block(const TensorSpec&, int, int) const override { return std::nullopt; }

 private:
  const checkpoint::CheckpointReader& reader_;
};

class RandomSource final : public WeightSource {
 public:
  RandomSource(const model_spec::OptConfig& config, uint64_t seed, DType dtype,
               std::optional<quant::QuantFormat> format, float up_bias)
      : config_(config),
        tensors_(opt_tensors(config)),
        seed_(seed),
        dtype_(dtype),
        format_(format),
        up_bias_(up_bias) {}

  const model_spec::OptConfig& config() const override { return config_; }
  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  DType dtype() const override { return dtype_; }
  quant::QuantFormat format(const TensorSpec& spec) const override {
    return format_ && spec.quantisable ? *format_ : *quant::plain_format(dtype_);
  }
  void read_scales(const TensorSpec& spec, int rank, int world, std::span<float> out) const override {
    std::ranges::fill(out, quant::random_scale(*random_block(spec, rank, world), format(spec)));
  }

  void read_block(const TensorSpec& spec, int rank, int world, std::span<std::byte> out) const override {
    const RandomBlock block = *random_block(spec, rank, world);
    return is_plain(format(spec)) ? fill_random(block, out) : quant::fill_random_codes(block, format(spec), out);
  }

  std::optional<RandomBlock> random_block(const TensorSpec& spec, int rank, int world) const override {
    RandomBlock random;
    random.key = splitmix64(seed_);
    for (char c : spec.name) random.key = splitmix64(random.key ^ static_cast<uint8_t>(c));
    random.dtype = dtype_;
    const model_spec::Block block = block_of(spec, rank, world);
    for (const model_spec::RowRange& range : block.rows) random.runs.push_back({range.begin, range.count});
    random.first_col = block.col_begin;
    random.cols = block.cols;
    random.whole_cols = spec.cols;
    set_range(spec, random);
    return random;
  }

 private:
  // Sets the range of the values, centre +- reach.
  void set_range(const TensorSpec& spec, RandomBlock& random) const {
    if (!spec.is_matrix) {
      const bool gain = spec.name.ends_with("norm.weight");
      random.centre = gain ? 1.0f : 0.0f;
      random.reach = gain ? 0.3f : 0.1f;
      if (spec.name.ends_with("ffn.up.bias")) random.centre = up_bias_;
    } else if (spec.name == "embed_positions.weight") {
      random.reach = 0.2f;
    } else {
      // Variance 1 / columns keeps the scale of activations; the token table is twice that, for logits that differ.
      const bool table = spec.name == "embed_tokens.weight" || spec.name == "output_projection.weight";
      random.reach = (table ? 2.0f : 1.0f) * std::sqrt(3.0f / static_cast<float>(spec.cols));
    }
  }

  model_spec::OptConfig config_;
  std::vector<TensorSpec> tensors_;
  uint64_t seed_;
  DType dtype_;
  std::optional<quant::QuantFormat> format_;
  float up_bias_;
};

}  // namespace

std::unique_ptr<WeightSource> make_checkpoint_source(const checkpoint::CheckpointReader& reader) {
  return std::make_unique<CheckpointSource>(reader);
}

std::unique_ptr<WeightSource> make_random_source(const model_spec::OptConfig& config, uint64_t seed, DType dtype,
                                                 std::optional<quant::QuantFormat> format, float up_bias) {
  return std::make_unique<RandomSource>(config, seed, dtype, format, up_bias);
}

}  // namespace optserve::engine
