#include "batching/step_plan.h"

#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

namespace optserve::batching {

namespace {

// Integers are written as LEB128 of their zigzag form, so that a step that only decodes takes a few bytes per sequence.
class Writer {
 public:
  void put_unsigned(uint64_t value) {
    while (value >= 0x80) {
      bytes_.push_back(static_cast<uint8_t>(value | 0x80));
      value >>= 7;
    }
    bytes_.push_back(static_cast<uint8_t>(value));
  }
  void put_signed(int64_t value) {
    put_unsigned((static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
  }
  void put_float(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_.push_back(static_cast<uint8_t>(bits >> shift));
  }
  void put_list(const std::vector<int32_t>& values) {
    put_unsigned(values.size());
    for (int32_t value : values) put_signed(value);
  }
  std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
};

// Reads what Writer wrote. After a failure every read gives zero and ok() is false.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }

  uint64_t get_unsigned() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return fail();
      const uint8_t byte = rest_.front();
      rest_ = rest_.subspan(1);
      if (shift == 63 && byte > 1) return fail();
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return fail();
  }
  int32_t get_int32() {
    const uint64_t zigzag = get_unsigned();
    const int64_t value = static_cast<int64_t>(zigzag >> 1) ^ -static_cast<int64_t>(zigzag & 1);
    if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max()) {
      return static_cast<int32_t>(fail());
    }
    return static_cast<int32_t>(value);
  }
  float get_float() {
    if (rest_.size() < 4) return static_cast<float>(fail());
    uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(rest_[static_cast<size_t>(i)]) << (8 * i);
    rest_ = rest_.subspan(4);
    return std::bit_cast<float>(bits);
  }
  // A count of items of at least one byte each, so that it cannot exceed what is left.
  size_t get_count() {
    const uint64_t count = get_unsigned();
    if (count > rest_.size()) return fail();
    return static_cast<size_t>(count);
  }
  std::vector<int32_t> get_list() {
    std::vector<int32_t> values(get_count());
    for (int32_t& value : values) value = get_int32();
    return values;
  }

 private:
  uint64_t fail() {
    ok_ = false;
    rest_ = {};
    return 0;
  }

  std::span<const uint8_t> rest_;
  bool ok_ = true;
};

void put_sampling(Writer& writer, const sampling::SamplingParams& params) {
  sampling::for_each_parameter(params, [&writer](const sampling::ParameterInfo&, auto value) {
    using T = decltype(value);
    if constexpr (std::is_same_v<T, float>) {
      writer.put_float(value);
    } else if constexpr (std::is_same_v<T, int32_t>) {
      writer.put_signed(value);
    } else {
      writer.put_unsigned(static_cast<uint64_t>(value));
    }
  });
}

sampling::SamplingParams get_sampling(Reader& reader) {
  sampling::SamplingParams params;
  sampling::for_each_parameter(params, [&reader](const sampling::ParameterInfo&, auto& value) {
    using T = std::remove_reference_t<decltype(value)>;
    if constexpr (std::is_same_v<T, float>) {
      value = reader.get_float();
    } else if constexpr (std::is_same_v<T, int32_t>) {
      value = reader.get_int32();
    } else {
      value = static_cast<T>(reader.get_unsigned());
    }
  });
  return params;
}

void put_work(Writer& writer, const SlotWork& work) {
  writer.put_signed(work.slot);
  writer.put_signed(work.start);
  writer.put_signed(work.num_tokens);
  writer.put_unsigned(work.sample ? 1 : 0);
  writer.put_list(work.tokens);
  writer.put_list(work.new_blocks);
  writer.put_list(work.logprob_targets);
  if (!work.logprob_targets.empty()) writer.put_signed(work.target_best);
  writer.put_list(work.drafts);
}

SlotWork get_work(Reader& reader) {
  SlotWork work;
  work.slot = reader.get_int32();
  work.start = reader.get_int32();
  work.num_tokens = reader.get_int32();
  work.sample = reader.get_unsigned() != 0;
  work.tokens = reader.get_list();
  work.new_blocks = reader.get_list();
  work.logprob_targets = reader.get_list();
  if (!work.logprob_targets.empty()) work.target_best = reader.get_int32();
  work.drafts = reader.get_list();
  return work;
}

}  // namespace

int64_t StepPlan::num_tokens() const {
  int64_t sum = 0;
  for (const SlotWork& item : work) sum += item.num_tokens;
  return sum;
}

std::vector<uint8_t> encode(const StepPlan& plan) {
  Writer writer;
  writer.put_unsigned(plan.step);
  writer.put_list(plan.released);
  writer.put_unsigned(plan.admitted.size());
  for (const AdmittedSlot& slot : plan.admitted) {
    writer.put_signed(slot.slot);
    writer.put_signed(slot.prompt_tokens);
    put_sampling(writer, slot.sampling);
    writer.put_list(slot.rules);
    writer.put_list(slot.cached);
  }
  writer.put_unsigned(plan.work.size());
  for (const SlotWork& item : plan.work) put_work(writer, item);
  return writer.take();
}

Result<StepPlan> decode_step_plan(std::span<const uint8_t> bytes) {
  Reader reader(bytes);
  StepPlan plan;
  plan.step = reader.get_unsigned();
  plan.released = reader.get_list();
  for (size_t left = reader.get_count(); left > 0 && reader.ok(); --left) {
    AdmittedSlot& slot = plan.admitted.emplace_back();
    slot.slot = reader.get_int32();
    slot.prompt_tokens = reader.get_int32();
    slot.sampling = get_sampling(reader);
    slot.rules = reader.get_list();
    slot.cached = reader.get_list();
  }
  for (size_t left = reader.get_count(); left > 0 && reader.ok(); --left) plan.work.push_back(get_work(reader));
  if (!reader.ok() || !reader.at_end()) {
    return refuse(ErrorCode::kDataCorrupt, "step plan of " + std::to_string(bytes.size()) + " bytes is " +
                                               (reader.ok() ? "followed by other bytes" : "cut short or malformed"));
  }
  return plan;
}

}  // namespace optserve::batching
