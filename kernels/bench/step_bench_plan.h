// The host's side of a step: the models, the variants of a kernel, and whether a variant fits the device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "kernels/bench/step_bench_shape.h"

namespace optserve::kernels::step_bench {

struct Model {
  std::string name;
  uint32_t layers, hidden, heads, vocabulary;
};

// What may be varied. A number of bytes or blocks is a limit where less is enough.
struct Variant {
  uint32_t warps = 16;       // of a block
  uint32_t unit = 2048;      // bytes of a bulk copy; the largest that divides a word's weights by a power of two
  uint32_t shared_kb = 0;    // of a block; 0 is all that there is
  uint32_t per_sm = 1;       // blocks of a multiprocessor
  uint32_t grain = 2;        // rows of weights that a block takes at least: 2 or 8
  uint32_t rotate = 37;      // blocks by which the split moves from product to product
  uint32_t sleep = 0;        // persistent: nanoseconds between looks
  uint32_t pad_kb = 0;       // chain: shared memory that a block takes at least, which keeps blocks apart
  uint32_t at_once = 0;      // chain: 1 lets the next kernel start at once, 0 when the weights are requested
  uint32_t prefetch = 0;     // chain: units of a warp that are prefetched to L2 beyond its ring
  uint32_t cooperative = 1;  // persistent: launched so that the driver checks that all blocks are resident

  // The option of that name, or null.
  uint32_t* find(const std::string& name) {
    const struct {
      const char* name;
      uint32_t* value;
    } options[] = {{"warps", &warps},         {"unit", &unit},
                   {"shared_kb", &shared_kb}, {"per_sm", &per_sm},
                   {"grain", &grain},         {"rotate", &rotate},
                   {"sleep", &sleep},         {"at_once", &at_once},
                   {"prefetch", &prefetch},   {"cooperative", &cooperative},
                   {"pad_kb", &pad_kb}};
    for (const auto& option : options) {
      if (name == option.name) return option.value;
    }
    return nullptr;
  }
};

struct Device {
  uint32_t multiprocessors = 0, shared_of_block = 0, shared_of_multiprocessor = 0;
};

inline uint32_t divide_up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

inline Step make_step(const Model& model, const Variant& variant, const char* weights) {
  Step step;
  const uint32_t hidden = model.hidden, ffn = 4 * hidden, word_bytes = 4 * hidden;
  uint32_t parts_log2 = 0;
  while ((word_bytes >> parts_log2) > variant.unit && (word_bytes >> parts_log2) % 32 == 0) ++parts_log2;
  step.weights = weights;
  step.layers = model.layers;
  step.heads = model.heads;
  step.hidden_words = hidden / 2;
  step.head_words = hidden / model.heads / 2;
  step.unit_bytes = word_bytes >> parts_log2;
  step.grain_log2 = variant.grain == 8 ? 2 : 0;
  step.rotation = variant.rotate;
  uint64_t offset = 0;
  const auto add = [&](Kind kind, uint32_t out, uint32_t in, uint32_t kind_parts_log2) {
    step.kinds[kind] = {offset, out / 2, 2 * in, kind_parts_log2};
    offset += uint64_t{2} * in * out;
  };
  add(kQkv, 3 * hidden, hidden, parts_log2);
  add(kOut, hidden, hidden, parts_log2);
  add(kFc1, ffn, hidden, parts_log2);
  add(kFc2, hidden, ffn, parts_log2 + 2);
  step.layer_bytes = offset;
  offset *= model.layers;
  add(kHead, model.vocabulary, hidden, parts_log2);
  return step;
}

// Words of the largest part that a block gets of a product.
inline uint32_t block_words(const Step& step, uint32_t kind, uint32_t blocks) {
  return divide_up(step.kinds[kind].words >> step.grain_log2, blocks) << step.grain_log2;
}

inline uint32_t shared_limit(const Variant& variant, const Device& device) {
  constexpr uint32_t kReserved = 1024;  // by the driver, in each block
  const uint32_t most = std::min(device.shared_of_block, device.shared_of_multiprocessor / variant.per_sm - kReserved);
  return variant.shared_kb == 0 ? most : std::min(most, variant.shared_kb << 10);
}

// Nothing if the ring of a warp has no room for a unit. A ring has at most `slots_max` units.
inline std::optional<Layout> make_layout(const Step& step, const Variant& variant, const Device& device,
                                         const uint32_t (&x_bytes)[2], uint32_t cells, uint32_t slots_max) {
  const uint32_t limit = shared_limit(variant, device);
  Layout layout;
  const auto aligned = [](uint32_t bytes) { return divide_up(bytes, 128) * 128; };
  layout.x[1] = aligned(x_bytes[0]);
  layout.cells = layout.x[1] + aligned(x_bytes[1]);
  layout.cell_count = cells;
  layout.barriers = layout.cells + aligned(8 * cells);
  for (layout.slots = slots_max; layout.slots > 0; --layout.slots) {
    layout.ring = layout.barriers + aligned(8 * variant.warps * layout.slots);
    layout.bytes = layout.ring + variant.warps * layout.slots * step.unit_bytes;
    if (layout.bytes <= limit) return layout;
  }
  return std::nullopt;
}

inline std::optional<Layout> persistent_layout(const Step& step, const Variant& variant, const Device& device) {
  uint32_t cells = 0;
  for (uint32_t kind = 0; kind < kKinds; ++kind) {
    cells = std::max(cells, block_words(step, kind, device.multiprocessors * variant.per_sm));
  }
  constexpr uint32_t kSlotsMax = 64;
  return make_layout(step, variant, device, {step.kinds[kQkv].row_bytes, step.kinds[kFc2].row_bytes}, cells, kSlotsMax);
}

inline std::optional<Layout> chain_layout(const Step& step, uint32_t kind, const Variant& variant,
                                          const Device& device) {
  const uint32_t words = block_words(step, kind, device.multiprocessors * variant.per_sm);
  const uint32_t units = divide_up(words << step.kinds[kind].parts_log2, variant.warps);
  auto layout = make_layout(step, variant, device, {step.kinds[kind].row_bytes, 0}, words, std::max(units, 1u));
  const uint32_t least =
      std::min(variant.pad_kb << 10, std::min(device.shared_of_block, shared_limit(variant, device)));
  if (layout) layout->bytes = std::max(layout->bytes, least);
  return layout;
}

inline std::string text_of(const Variant& v, bool persistent) {
  char text[160];
  const int head = std::snprintf(text, sizeof text, "warps=%u,unit=%u,shared_kb=%u,per_sm=%u,grain=%u,rotate=%u",
                                 v.warps, v.unit, v.shared_kb, v.per_sm, v.grain, v.rotate);
  if (persistent) {
    std::snprintf(text + head, sizeof text - head, ",sleep=%u,cooperative=%u", v.sleep, v.cooperative);
  } else {
    std::snprintf(text + head, sizeof text - head, ",at_once=%u,prefetch=%u,pad_kb=%u", v.at_once, v.prefetch,
                  v.pad_kb);
  }
  return text;
}

}  // namespace optserve::kernels::step_bench
