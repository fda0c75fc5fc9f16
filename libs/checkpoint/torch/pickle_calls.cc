// The half of PickleMachine that fills containers, names globals and interprets calls.
#include <algorithm>

#include "checkpoint/torch/pickle_globals.h"
#include "checkpoint/torch/pickle_machine.h"

namespace optserve::checkpoint {
namespace {

constexpr int64_t kElementsMax = int64_t{1} << 60;  // keeps element and byte arithmetic inside int64

}  // namespace

bool PickleMachine::append_items(ValueId target, const std::vector<ValueId>& items) {
  if (doc_.kind(target) == ValueKind::kOpaque) return true;  // a list of an unknown class: dropped
  if (doc_.kind(target) != ValueKind::kList) {
    return fail("the pickle appends to something that is not a list" + place() + "; refused");
  }
  if (!charge(items.size() * sizeof(ValueId))) return false;
  std::vector<ValueId>& list = doc_.sequences_[doc_.values_[target].index];
  list.insert(list.end(), items.begin(), items.end());
  return true;
}

bool PickleMachine::append() {
  ValueId item = 0;
  if (!pop(item)) return false;
  ValueId target = 0;
  if (!top(target)) return false;
  return append_items(target, {item});
}

bool PickleMachine::appends() {
  std::vector<ValueId> items;
  if (!pop_to_mark(items)) return false;
  ValueId target = 0;
  if (!top(target)) return false;
  return append_items(target, items);
}

bool PickleMachine::store_pairs(ValueId target, const std::vector<ValueId>& items) {
  if (items.size() % 2 != 0) return fail("the pickle is damaged: a key without a value" + place());
  if (doc_.kind(target) == ValueKind::kOpaque) return true;  // a dict of an unknown class: dropped
  if (doc_.kind(target) != ValueKind::kDict) {
    return fail("the pickle sets items of something that is not a dict" + place() + "; refused");
  }
  if (!charge(items.size() * sizeof(ValueId))) return false;
  auto& pairs = doc_.dicts_[doc_.values_[target].index];
  for (size_t i = 0; i < items.size(); i += 2) pairs.emplace_back(items[i], items[i + 1]);
  return true;
}

bool PickleMachine::setitem() {
  ValueId value = 0;
  ValueId key = 0;
  if (!pop(value) || !pop(key)) return false;
  ValueId target = 0;
  if (!top(target)) return false;
  return store_pairs(target, {key, value});
}

bool PickleMachine::setitems() {
  std::vector<ValueId> items;
  if (!pop_to_mark(items)) return false;
  ValueId target = 0;
  if (!top(target)) return false;
  return store_pairs(target, items);
}

bool PickleMachine::global() {
  std::string_view module, leaf;
  if (!take_line(module) || !take_line(leaf)) return false;
  std::string name = std::string(module) + "." + std::string(leaf);
  if (std::any_of(name.begin(), name.end(), [](char c) { return c < 0x21 || c > 0x7e; })) {
    return fail("the pickle is damaged: a global whose name is not plain text");
  }
  if (!charge(sizeof name + name.size())) return false;
  // Calls are refused at once; a dangerous global that is not called is refused at the end of the pickle.
  if (dangerous_.empty() && role_of_global(name) == GlobalRole::kDangerous) dangerous_ = name + place();
  doc_.names_.push_back(std::move(name));
  return push({ValueKind::kGlobal, static_cast<uint32_t>(doc_.names_.size() - 1), {}});
}

bool PickleMachine::reduce() {
  ValueId arguments = 0;
  ValueId callable = 0;
  return pop(arguments) && pop(callable) && call(callable, arguments, "calls");
}

bool PickleMachine::newobj() {
  ValueId arguments = 0;
  ValueId type = 0;
  return pop(arguments) && pop(type) && call(type, arguments, "creates");
}

// Refuses what would run code in Python, whether it is called or passed to another call.
bool PickleMachine::check_harmless(ValueId callable, ValueId arguments, std::string_view how) {
  const auto is_dangerous = [&](ValueId id) {
    return doc_.kind(id) == ValueKind::kGlobal && role_of_global(doc_.text(id)) == GlobalRole::kDangerous;
  };
  if (is_dangerous(callable)) {
    return fail("the pickle " + std::string(how) + " " + std::string(doc_.text(callable)) + place() +
                ": it would run code when loaded by Python; refused");
  }
  for (ValueId argument : doc_.items(arguments)) {
    if (is_dangerous(argument)) {
      return fail("the pickle passes " + std::string(doc_.text(argument)) + " to a call" + place() +
                  ": it would run code when loaded by Python; refused");
    }
  }
  return true;
}

bool PickleMachine::call(ValueId callable, ValueId arguments, std::string_view how) {
  if (doc_.kind(arguments) != ValueKind::kTuple) {
    return fail("the pickle is damaged: arguments are not a tuple" + place());
  }
  if (!check_harmless(callable, arguments, how)) return false;
  if (doc_.kind(callable) == ValueKind::kOpaque) return push_opaque(doc_.opaques_[doc_.values_[callable].index].name);
  if (doc_.kind(callable) != ValueKind::kGlobal) return fail("the pickle calls a value that is not a name" + place());
  switch (role_of_global(doc_.text(callable))) {
    case GlobalRole::kOrderedDict:
      return call_ordered_dict(doc_.items(arguments));
    case GlobalRole::kRebuildTensor:
      return call_rebuild_tensor(doc_.items(arguments));
    case GlobalRole::kRebuildParameter:
      return call_rebuild_parameter(doc_.items(arguments));
    case GlobalRole::kTorchSize:
      return call_torch_size(doc_.items(arguments));
    case GlobalRole::kDangerous:
    case GlobalRole::kUnknown:
      break;
  }
  return push_opaque(doc_.values_[callable].index);
}

// Handles OrderedDict() and OrderedDict([[key, value], ...]).
bool PickleMachine::call_ordered_dict(const std::vector<ValueId>& arguments) {
  std::vector<ValueId> flat;
  if (arguments.size() > 1) return fail("OrderedDict with several arguments" + place());
  if (arguments.size() == 1) {
    if (doc_.kind(arguments[0]) != ValueKind::kList) {
      return fail("OrderedDict of something that is not a list" + place());
    }
    for (ValueId pair : doc_.items(arguments[0])) {
      const bool is_sequence = doc_.kind(pair) == ValueKind::kList || doc_.kind(pair) == ValueKind::kTuple;
      if (!is_sequence || doc_.items(pair).size() != 2) return fail("OrderedDict of something but pairs" + place());
      flat.insert(flat.end(), doc_.items(pair).begin(), doc_.items(pair).end());
    }
  }
  return empty_dict() && store_pairs(stack_.back(), flat);
}

// The torch.Size of a tuple is that tuple.
bool PickleMachine::call_torch_size(const std::vector<ValueId>& arguments) {
  if (arguments.size() != 1 ||
      (doc_.kind(arguments[0]) != ValueKind::kTuple && doc_.kind(arguments[0]) != ValueKind::kList)) {
    return fail("torch.Size of something that is not a tuple" + place());
  }
  return push_sequence(ValueKind::kTuple, std::vector<ValueId>(doc_.items(arguments[0])));
}

bool PickleMachine::sizes_of(ValueId id, std::vector<int64_t>& out) {
  if (doc_.kind(id) != ValueKind::kTuple || doc_.items(id).size() > limits_.dims) {
    return fail("a tensor whose sizes are not at most " + std::to_string(limits_.dims) + " numbers" + place());
  }
  for (ValueId item : doc_.items(id)) {
    if (doc_.kind(item) != ValueKind::kInt || doc_.integer(item) < 0 || doc_.integer(item) > kElementsMax) {
      return fail("a tensor with an impossible size or stride" + place());
    }
    out.push_back(doc_.integer(item));
  }
  return true;
}

// Every element must lie inside the storage: offset + sum of (size - 1) * stride below numel, without overflow.
bool PickleMachine::check_view(const PickleTensor& tensor) {
  if (tensor.shape.size() != tensor.stride.size()) return fail("a tensor with sizes but other strides" + place());
  int64_t last = tensor.offset;
  int64_t elements = 1;  // sizes of 0 count as 1 here, so that no later product of sizes can overflow either
  bool is_empty = false;
  bool fits = true;
  for (size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    const int64_t size = tensor.shape[axis];
    const int64_t stride = tensor.stride[axis];
    if (size > 1 && stride == 0) return fail("a tensor that repeats elements by a stride of 0" + place());
    int64_t reach = 0;
    is_empty = is_empty || size == 0;
    fits = fits && !__builtin_mul_overflow(elements, std::max<int64_t>(size, 1), &elements) && elements <= kElementsMax;
    if (size > 1) {
      fits = fits && !__builtin_mul_overflow(size - 1, stride, &reach) && !__builtin_add_overflow(last, reach, &last);
    }
  }
  const int64_t numel = doc_.storages_[tensor.storage].numel;
  fits = fits && (is_empty ? tensor.offset <= numel : last < numel);
  return fits ||
         fail("a tensor that reaches outside of its storage of " + std::to_string(numel) + " elements" + place());
}

// torch._utils._rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks[, metadata])
bool PickleMachine::call_rebuild_tensor(const std::vector<ValueId>& arguments) {
  if (arguments.size() < 6 || arguments.size() > 7 || doc_.kind(arguments[0]) != ValueKind::kStorage ||
      doc_.kind(arguments[1]) != ValueKind::kInt) {
    return fail("a tensor with arguments that torch.save does not write" + place());
  }
  PickleTensor tensor;
  tensor.storage = doc_.storage_index(arguments[0]);
  tensor.offset = doc_.integer(arguments[1]);
  if (tensor.offset < 0 || tensor.offset > kElementsMax) return fail("a tensor with an impossible offset" + place());
  if (!sizes_of(arguments[2], tensor.shape) || !sizes_of(arguments[3], tensor.stride) || !check_view(tensor)) {
    return false;
  }
  if (doc_.tensors_.size() >= limits_.tensors) {
    return fail("the pickle holds more than " + std::to_string(limits_.tensors) + " tensors");
  }
  if (!charge(sizeof tensor + 2 * limits_.dims * sizeof(int64_t))) return false;
  doc_.tensors_.push_back(std::move(tensor));
  return push({ValueKind::kTensor, static_cast<uint32_t>(doc_.tensors_.size() - 1), {}});
}

// torch._utils._rebuild_parameter(tensor, requires_grad, backward_hooks) is its tensor.
bool PickleMachine::call_rebuild_parameter(const std::vector<ValueId>& arguments) {
  if (arguments.size() != 3 || doc_.kind(arguments[0]) != ValueKind::kTensor) {
    return fail("a parameter with arguments that torch.save does not write" + place());
  }
  return charge(sizeof(ValueId)) && (stack_.push_back(arguments[0]), true);
}

bool PickleMachine::build() {
  ValueId state = 0;
  if (!pop(state)) return false;
  ValueId target = 0;
  if (!top(target)) return false;
  if (doc_.kind(target) == ValueKind::kDict) return true;  // attributes of an OrderedDict (_metadata) are not needed
  if (doc_.kind(target) != ValueKind::kOpaque) {
    return fail("the pickle sets attributes of a value that has none" + place() + "; refused");
  }
  doc_.opaques_[doc_.values_[target].index].state = state;
  return true;
}

// ('storage', <torch.XStorage>, key, location, numel); before PyTorch 1.6 with a sixth value, which is None unless the
// storage is a part of another.
bool PickleMachine::binpersid() {
  ValueId id = 0;
  if (!pop(id)) return false;
  const auto bad = [&] { return fail("a storage whose description torch.save does not write" + place()); };
  if (doc_.kind(id) != ValueKind::kTuple) return bad();
  const std::vector<ValueId>& parts = doc_.items(id);
  const bool is_legacy = parts.size() == 6 && doc_.kind(parts[5]) == ValueKind::kNone;
  if ((parts.size() != 5 && !is_legacy) || doc_.kind(parts[0]) != ValueKind::kString ||
      doc_.text(parts[0]) != "storage" || doc_.kind(parts[1]) != ValueKind::kGlobal ||
      doc_.kind(parts[2]) != ValueKind::kString || doc_.kind(parts[4]) != ValueKind::kInt) {
    return bad();
  }
  const std::string type(doc_.text(parts[1]));
  const auto dtype = storage_dtype(type);
  if (!dtype) return fail("a storage of type " + type + ", which is not supported" + place());
  const std::string_view key = doc_.text(parts[2]);
  const int64_t numel = doc_.integer(parts[4]);
  if (key.empty() || key.size() > limits_.key_bytes || numel < 0 || numel > kElementsMax) return bad();
  const auto [found, is_new] = storage_by_key_.emplace(key, static_cast<uint32_t>(doc_.storages_.size()));
  if (is_new) {
    if (doc_.storages_.size() >= limits_.tensors || !charge(sizeof(PickleStorage) + 8 * sizeof(uint64_t))) {
      return error_.empty() ? fail("the pickle holds too many storages") : false;
    }
    doc_.storages_.push_back({*dtype, key, numel});
  } else if (doc_.storages_[found->second].dtype != *dtype || doc_.storages_[found->second].numel != numel) {
    return fail("storage '" + std::string(key) + "' is described in two ways" + place());
  }
  return push({ValueKind::kStorage, found->second, {}});
}

}  // namespace optserve::checkpoint
