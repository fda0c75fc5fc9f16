// The demo model in every quantised format against a plain checkpoint that holds the dequantised values: the same
// tokens, and log-probabilities that differ by rounding, alone and in groups.
#include <gtest/gtest.h>

#include "checkpoint/reader.h"
#include "checkpoint/writer.h"
#include "quant/e4m3.h"
#include "support/demo_model.h"
#include "support/engine_group.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace quantised_engine_test {

using checkpoint::CheckpointReader;
using model_spec::TensorSpec;

// The whole matrix, weight by weight as the format is described.
std::vector<float> dequantised(const CheckpointReader& reader, const TensorSpec& spec) {
  std::vector<std::byte> values(reader.block_bytes(spec, 1));
  std::vector<float> scales(static_cast<size_t>(reader.block_scales(spec, 1)));
  reader.read_block(spec, 0, 1, values);
  reader.read_scales(spec, 0, 1, scales);
  const quant::QuantFormat format = reader.format(spec);
  const size_t group = static_cast<size_t>(spec.elements()) / scales.size();
  std::vector<float> weights(static_cast<size_t>(spec.elements()));
  for (size_t i = 0; i < weights.size(); ++i) {
    float value = 0;
    if (format == quant::QuantFormat::kInt8) value = static_cast<float>(static_cast<int8_t>(values[i]));
    if (format == quant::QuantFormat::kFp8) value = quant::e4m3_to_float(static_cast<uint8_t>(values[i]));
    if (format == quant::QuantFormat::kInt4) {
      const int nibble = (static_cast<int>(values[i / 2]) >> (i % 2 * 4)) & 15;
      value = static_cast<float>(nibble < 8 ? nibble : nibble - 16);
    }
    weights[i] = value * scales[i / group];
  }
  return weights;
}

// The same model without quantisation, every tensor in `dtype`.
void write_dequantised(const std::string& from, const std::string& to, DType dtype) {
  const auto opened = CheckpointReader::open(from);
  if (!opened.ok()) throw Error(opened.refusal().message);
  const CheckpointReader& reader = opened.value();
  const int shards = reader.manifest().shards;
  auto writer = checkpoint::CheckpointWriter::create(to, {reader.config(), dtype, shards, {}});
  if (!writer.ok()) throw Error(writer.refusal().message);
  for (const TensorSpec& spec : reader.tensors()) {
    for (int shard = 0; shard < shards; ++shard) {
      std::vector<float> part;
      const model_spec::Block block = model_spec::block_of(spec, shard, shards);
      if (!spec.quantisable) {
        std::vector<std::byte> stored(reader.block_bytes(spec, shards));
        reader.read_block(spec, shard, shards, stored);
        part.resize(static_cast<size_t>(block.elements()));
        convert_to_f32(stored.data(), reader.dtype(), part.data(), part.size());
      }
      const std::vector<float> whole = spec.quantisable ? dequantised(reader, spec) : std::vector<float>();
      for (const model_spec::RowRange& range : spec.quantisable ? block.rows : std::vector<model_spec::RowRange>()) {
        for (int64_t row = range.begin; row < range.begin + range.count; ++row) {
          for (int64_t col = block.col_begin; col < block.col_begin + block.cols; ++col) {
            part.push_back(whole[static_cast<size_t>(row * spec.cols + col)]);
          }
        }
      }
      std::vector<std::byte> bytes(part.size() * dtype_bytes(dtype));
      convert_from_f32(part.data(), dtype, bytes.data(), part.size());
      writer.value()->append(shard, bytes);
    }
  }
  const Status status = writer.value()->publish({"dequantised", {}}, "tests");
  if (!status.ok()) throw Error(status.refusal().message);
}

std::vector<engine::Generation> generate(const std::string& folder, const GroupKind& group) {
  std::vector<batching::SequenceRequest> requests;
  for (size_t i = 0; i < 4; ++i) {
    const DemoCase& golden = demo_goldens().cases[i];
    batching::SequenceRequest& request = requests.emplace_back();
    request.tokens = golden.prompt_ids;
    request.prompt_tokens = static_cast<int32_t>(golden.prompt_ids.size());
    request.max_new_tokens = 16;
    request.prompt_logprobs = true;
    request.sampling.temperature = 0;
  }
  engine::EngineOptions options;
  options.checkpoint = folder;
  options.num_blocks = 64;
  options.max_sequences = 4;
  options.max_step_tokens = 256;
  std::vector<engine::Generation> generations;
  run_engine_group(group, options, [&](engine::GroupLeader& leader, const engine::Engine& engine) {
    generations = engine::generate_all(leader, planner_options(engine), requests);
  });
  return generations;
}

class QuantisedEngine : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Formats, QuantisedEngine, ::testing::Values("int8", "fp8", "int4"));

// The engine scales sums of products with codes; with dequantised weights it adds products of rounded values.
void expect_near(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 2e-3f) << i;
}

void expect_equal(const std::vector<engine::Generation>& a, const std::vector<engine::Generation>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].tokens, b[i].tokens) << i;
    expect_near(a[i].logprobs, b[i].logprobs);
    expect_near(a[i].prompt_logprobs, b[i].prompt_logprobs);
  }
}

TEST_P(QuantisedEngine, ComputesWithTheDequantisedValues) {
  const TemporaryFolder folder;
  convert_demo_model(folder / "quantised", 2, GetParam());
  write_dequantised(folder / "quantised", folder / "plain", DType::kF32);
  convert_demo_model(folder / "unquantised", 2);
  for (const GroupKind& group : {GroupKind{comm::RankKind::kSolo, 1}, GroupKind{comm::RankKind::kThreads, 2}}) {
    SCOPED_TRACE(group_name(group));
    const auto quantised = generate(folder / "quantised", group);
    expect_equal(quantised, generate(folder / "plain", group));
    EXPECT_NE(quantised[0].prompt_logprobs, generate(folder / "unquantised", group)[0].prompt_logprobs)
        << "nothing was quantised";
  }
}

TEST_P(QuantisedEngine, MultipliesCodesWhereTheOtherTensorsAreBf16) {
  const TemporaryFolder folder;
  convert_demo_model(folder / "quantised", 2, GetParam(), DType::kBF16);
  write_dequantised(folder / "quantised", folder / "plain", DType::kF32);
  const GroupKind group{comm::RankKind::kSolo, 1};
  expect_equal(generate(folder / "quantised", group), generate(folder / "plain", group));
}

}  // namespace quantised_engine_test
}  // namespace optserve::test_support
