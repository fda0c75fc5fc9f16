#include "checkpoint/torch/pickle.h"

#include "base/check.h"
#include "checkpoint/torch/pickle_machine.h"

namespace optserve::checkpoint {

int64_t PickleDocument::integer(ValueId id) const {
  check(kind(id) == ValueKind::kInt || kind(id) == ValueKind::kBool, "pickle value is not an integer");
  return values_[id].integer;
}

double PickleDocument::real(ValueId id) const {
  check(kind(id) == ValueKind::kFloat, "pickle value is not a float");
  return values_[id].real;
}

std::string_view PickleDocument::text(ValueId id) const {
  const uint32_t index = values_[id].index;
  if (kind(id) == ValueKind::kGlobal) return names_[index];
  if (kind(id) == ValueKind::kOpaque) return names_[opaques_[index].name];
  check(kind(id) == ValueKind::kString, "pickle value is not a text");
  return texts_[index];
}

const std::vector<ValueId>& PickleDocument::items(ValueId id) const {
  check(kind(id) == ValueKind::kTuple || kind(id) == ValueKind::kList, "pickle value is not a sequence");
  return sequences_[values_[id].index];
}

const std::vector<std::pair<ValueId, ValueId>>& PickleDocument::pairs(ValueId id) const {
  check(kind(id) == ValueKind::kDict, "pickle value is not a dict");
  return dicts_[values_[id].index];
}

uint32_t PickleDocument::storage_index(ValueId id) const {
  check(kind(id) == ValueKind::kStorage, "pickle value is not a storage");
  return values_[id].index;
}

const PickleTensor& PickleDocument::tensor(ValueId id) const {
  check(kind(id) == ValueKind::kTensor, "pickle value is not a tensor");
  return tensors_[values_[id].index];
}

std::optional<ValueId> PickleDocument::state(ValueId id) const {
  check(kind(id) == ValueKind::kOpaque, "pickle value is not opaque");
  return opaques_[values_[id].index].state;
}

std::optional<ValueId> PickleDocument::find(ValueId dict_or_opaque, std::string_view key) const {
  ValueId id = dict_or_opaque;
  if (kind(id) == ValueKind::kOpaque) {
    const std::optional<ValueId> inner = state(id);
    if (!inner) return std::nullopt;
    id = *inner;
  }
  if (kind(id) != ValueKind::kDict) return std::nullopt;
  const auto& list = pairs(id);
  for (auto pair = list.rbegin(); pair != list.rend(); ++pair) {
    if (kind(pair->first) == ValueKind::kString && text(pair->first) == key) return pair->second;
  }
  return std::nullopt;
}

Result<PickleDocument> read_pickle(std::string bytes, std::string_view file, const PickleLimits& limits) {
  return PickleMachine(std::move(bytes), file, limits).run();
}

Result<PickleAndSize> read_first_pickle(std::string bytes, std::string_view file, const PickleLimits& limits) {
  PickleMachine machine(std::move(bytes), file, limits);
  machine.may_be_followed();
  Result<PickleDocument> document = machine.run();
  if (!document.ok()) return document.refusal();
  return PickleAndSize{std::move(document).value(), machine.bytes_read()};
}

}  // namespace optserve::checkpoint
