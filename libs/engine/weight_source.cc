#include "engine/weight_source.h"

#include <cmath>

#include "base/check.h"
#include "checkpoint/reader.h"

namespace optserve::engine {

namespace {

using model_spec::TensorSpec;

class CheckpointSource final : public WeightSource {
 public:
  explicit CheckpointSource(const checkpoint::CheckpointReader& reader) : reader_(reader) {}

  const model_spec::OptConfig& config() const override { return reader_.config(); }
  const std::vector<TensorSpec>& tensors() const override { return reader_.tensors(); }
  tensor::DType dtype() const override { return reader_.dtype(); }
  void read_block(const TensorSpec& spec, int rank, int world, std::span<std::byte> out) const override {
    reader_.read_block(spec, rank, world, out);
  }

 private:
  const checkpoint::CheckpointReader& reader_;
};

uint64_t mix(uint64_t x) {  // the finaliser of splitmix64
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

class RandomSource final : public WeightSource {
 public:
  RandomSource(const model_spec::OptConfig& config, uint64_t seed, tensor::DType dtype)
      : config_(config), tensors_(opt_tensors(config)), seed_(seed), dtype_(dtype) {}

  const model_spec::OptConfig& config() const override { return config_; }
  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  tensor::DType dtype() const override { return dtype_; }

  void read_block(const TensorSpec& spec, int rank, int world, std::span<std::byte> out) const override {
    const model_spec::Block block = block_of(spec, rank, world);
    const size_t row_bytes = static_cast<size_t>(block.cols) * tensor::dtype_bytes(dtype_);
    check_eq(out.size(), static_cast<size_t>(block.row_count()) * row_bytes, "bytes of a random block");
    const Uniform values = uniform_of(spec);
    std::vector<float> row(static_cast<size_t>(block.cols));
    std::byte* destination = out.data();
    for (const model_spec::RowRange& range : block.rows) {
      for (int64_t r = range.begin; r < range.begin + range.count; ++r) {
        for (int64_t c = 0; c < block.cols; ++c) {
          row[static_cast<size_t>(c)] = values.at(static_cast<uint64_t>(r * spec.cols + block.col_begin + c));
        }
        tensor::convert_from_f32(row.data(), dtype_, destination, row.size());
        destination += row_bytes;
      }
    }
  }

 private:
  struct Uniform {
    uint64_t key = 0;
    float centre = 0;
    float reach = 0;  // values lie in centre +- reach

    float at(uint64_t index) const {
      const auto unit = static_cast<float>(mix(key + index) >> 40) * 0x1p-23f - 1.0f;  // [-1, 1)
      return centre + reach * unit;
    }
  };

  Uniform uniform_of(const TensorSpec& spec) const {
    uint64_t key = mix(seed_);
    for (char c : spec.name) key = mix(key ^ static_cast<uint8_t>(c));
    if (!spec.is_matrix) {
      const bool gain = spec.name.ends_with("norm.weight");
      return {key, gain ? 1.0f : 0.0f, gain ? 0.3f : 0.1f};
    }
    if (spec.name == "embed_positions.weight") return {key, 0.0f, 0.2f};
    // Variance 1 / columns keeps the scale of activations; the token table is twice that, for logits that differ.
    const float scale = spec.name == "embed_tokens.weight" || spec.name == "output_projection.weight" ? 2.0f : 1.0f;
    return {key, 0.0f, scale * std::sqrt(3.0f / static_cast<float>(spec.cols))};
  }

  model_spec::OptConfig config_;
  std::vector<TensorSpec> tensors_;
  uint64_t seed_;
  tensor::DType dtype_;
};

}  // namespace

std::unique_ptr<WeightSource> make_checkpoint_source(const checkpoint::CheckpointReader& reader) {
  return std::make_unique<CheckpointSource>(reader);
}

std::unique_ptr<WeightSource> make_random_source(const model_spec::OptConfig& config, uint64_t seed,
                                                 tensor::DType dtype) {
  return std::make_unique<RandomSource>(config, seed, dtype);
}

}  // namespace optserve::engine
