#include "support/tiny_model.h"

#include "checkpoint/writer.h"
#include "engine/weight_source.h"

namespace optserve::test_support {

namespace {

model_spec::OptConfig tiny(const std::string& name, int64_t layers, int64_t head_dim) {
  model_spec::OptConfig config;
  config.name = name;
  config.num_layers = layers;
  config.num_heads = 4;
  config.hidden = config.num_heads * head_dim;
  config.ffn = 4 * config.hidden;
  config.vocab = 504;
  config.vocab_real = 497;
  config.embed_dim = config.hidden;
  config.max_positions = 160;
  return config;
}

}  // namespace

std::vector<model_spec::OptConfig> tiny_configs() {
  model_spec::OptConfig after = tiny("norm-after", 3, 64);
  after.norm_before = false;
  after.embed_dim = 96;
  model_spec::OptConfig untied = tiny("untied", 2, 64);
  untied.tied_output = false;
  return {tiny("head-64", 3, 64), tiny("head-80", 2, 80), tiny("head-128", 2, 128), after, untied};
}

void write_random_checkpoint(const std::string& folder, const model_spec::OptConfig& config, uint64_t seed, DType dtype,
                             int shards) {
  const auto source = engine::make_random_source(config, seed, dtype);
  auto writer = checkpoint::CheckpointWriter::create(folder, {config, dtype, shards});
  if (!writer.ok()) throw Error(writer.refusal().message);
  for (int shard = 0; shard < shards; ++shard) {
    for (const model_spec::TensorSpec& spec : source->tensors()) {
      const auto elements = static_cast<size_t>(block_of(spec, shard, shards).elements());
      std::vector<std::byte> block(elements * dtype_bytes(dtype));
      source->read_block(spec, shard, shards, block);
      writer.value()->append(shard, block);
    }
  }
  const Status status = writer.value()->publish({.layout = "random weights", .files = {}}, "tests");
  if (!status.ok()) throw Error(status.refusal().message);
}

}  // namespace optserve::test_support
