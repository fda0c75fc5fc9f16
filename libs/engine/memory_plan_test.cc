#include "engine/memory_plan.h"

#include <gmock/gmock.h>

namespace optserve::engine {
namespace memory_plan_test {

using testing::HasSubstr;

constexpr size_t kGib = size_t{1} << 30;
const model_spec::OptConfig& opt(const char* name) { return *model_spec::find_published(name); }

uint64_t weights_of(const char* name, int world, std::optional<quant::QuantFormat> format = {}) {
  const auto backend = backend::make_backend({});
  return weight_bytes(*make_random_source(opt(name), 1, DType::kF16, format), world, *backend);
}

TEST(MemoryPlan, CountsWeightsAndCacheOfARank) {
  // 125M: 124.1 M parameters without the two unused positions, 36,864 bytes of cache per token.
  EXPECT_EQ(weights_of("opt-125m", 1), 4u * model_spec::parameter_count(opt("opt-125m")));
  EXPECT_EQ(kv_block_bytes(opt("opt-125m"), 1, DType::kF16), 36'864u * 16);
  EXPECT_EQ(kv_block_bytes(opt("opt-30b"), 4, DType::kF16), 1'376'256u * 16 / 4);
  // int8: half of that, and two scales for each of 12 layers and 12 heads.
  EXPECT_EQ(kv_block_bytes(opt("opt-125m"), 1, DType::kI8), (36'864u / 2 + 2 * 12 * 12 * 4) * 16);
  EXPECT_GT(195 * kv_block_bytes(opt("opt-30b"), 4, DType::kI8), 100 * kv_block_bytes(opt("opt-30b"), 4, DType::kF16));
  const uint64_t half = weights_of("opt-30b", 2), whole = weights_of("opt-30b", 1);
  EXPECT_GT(half, whole / 2);  // norms and positions are on every rank
  EXPECT_LT(half, whole / 2 + kGib / 8);
}

TEST(MemoryPlan, CountsQuantisedMatricesAsTheyAreKept) {
  // 12 layers of 12 x 768 x 768 weights, and a scale for each of their 9 x 768 outputs or 128 weights.
  const uint64_t large = uint64_t{12} * 12 * 768 * 768, others = weights_of("opt-125m", 1) - 4 * large;
  EXPECT_EQ(weights_of("opt-125m", 1, quant::QuantFormat::kInt8), others + large + 12u * 9 * 768 * 4);
  EXPECT_EQ(weights_of("opt-125m", 1, quant::QuantFormat::kFp8), others + large + 12u * 9 * 768 * 4);
  EXPECT_EQ(weights_of("opt-125m", 1, quant::QuantFormat::kInt4), others + large / 2 + large / 128 * 4);
}

// The biases give a random model as many zeros after its ReLU as a trained one has.
TEST(RandomSource, BiasesInFrontOfTheReluHaveTheWantedMean) {
  const auto source = make_random_source(opt("opt-125m"), 1, DType::kF32, {}, -1.5f);
  for (const model_spec::TensorSpec& spec : source->tensors()) {
    if (!spec.name.ends_with(".bias")) continue;
    const auto block = source->random_block(spec, 0, 1);
    ASSERT_TRUE(block.has_value());
    EXPECT_EQ(block->centre, spec.name.ends_with("ffn.up.bias") ? -1.5f : 0.0f) << spec.name;
  }
}

TEST(MemoryPlan, TheCacheTakesWhatIsLeft) {
  const MemoryNeeds needs{.weights = 10 * kGib, .workspace = 2 * kGib, .kv_block = kGib / 8};
  const backend::DeviceMemory memory{.free_bytes = 78 * kGib, .total_bytes = 80 * kGib};
  // 0.9 of 80 is 72; others hold 2, and weights and workspace take 12, so 58 are left.
  EXPECT_EQ(plan_kv_blocks(needs, memory, 0.9, 1, 1'000'000).value(), 58 * 8);
  EXPECT_EQ(plan_kv_blocks(needs, memory, 0.9, 1, 100).value(), 100);
  EXPECT_EQ(plan_kv_blocks(needs, memory, 0.9, 58 * 8, 1'000'000).value(), 58 * 8);
}

TEST(MemoryPlan, ARefusalShowsTheArithmetic) {
  const MemoryNeeds needs{.weights = 70 * kGib, .workspace = 2 * kGib, .kv_block = kGib / 8};
  const backend::DeviceMemory memory{.free_bytes = 78 * kGib, .total_bytes = 80 * kGib};
  const auto refused = plan_kv_blocks(needs, memory, 0.9, 16, 1000);
  ASSERT_FALSE(refused.ok());
  for (const char* part : {"weights 70.00 GiB", "workspace 2.00 GiB", "2.00 GiB (16 blocks of 128.00 MiB)",
                           "free 78.00 GiB of 80.00 GiB", "at most 90%", "short of 4.00 GiB"}) {
    EXPECT_THAT(refused.refusal().message, HasSubstr(part));
  }
}

}  // namespace memory_plan_test
}  // namespace optserve::engine
