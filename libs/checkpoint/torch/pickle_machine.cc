#include "checkpoint/torch/pickle_machine.h"

#include <algorithm>
#include <array>
#include <bit>

#include "checkpoint/torch/pickle_globals.h"

namespace optserve::checkpoint {
namespace {

constexpr int kProtocol = 2;
constexpr size_t kPlaceKeyMax = 80;

std::string hex_byte(unsigned char byte) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  return {'0', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
}

std::string printable(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, kPlaceKeyMax)) out += (c >= 0x20 && c < 0x7f) ? c : '?';
  return out;
}

}  // namespace

PickleMachine::PickleMachine(std::string bytes, std::string_view file, const PickleLimits& limits)
    : limits_(limits), file_(file) {
  doc_.bytes_ = std::make_unique<const std::string>(std::move(bytes));
}

PickleMachine::Handler PickleMachine::handler_of(unsigned char opcode) {
  using M = PickleMachine;
  static const std::array<Handler, 256> kHandlers = [] {
    std::array<Handler, 256> table{};
    const std::pair<int, Handler> known[] = {
        {0x80, &M::proto},          {'(', &M::mark},        {'N', &M::none},       {0x88, &M::true_value},
        {0x89, &M::false_value},    {'J', &M::binint},      {'K', &M::binint1},    {'M', &M::binint2},
        {0x8a, &M::long1},          {'G', &M::binfloat},    {'X', &M::binunicode}, {'T', &M::binstring},
        {'U', &M::short_binstring}, {'}', &M::empty_dict},  {']', &M::empty_list}, {')', &M::empty_tuple},
        {'t', &M::tuple},           {0x85, &M::tuple1},     {0x86, &M::tuple2},    {0x87, &M::tuple3},
        {'a', &M::append},          {'e', &M::appends},     {'s', &M::setitem},    {'u', &M::setitems},
        {'q', &M::binput},          {'r', &M::long_binput}, {'h', &M::binget},     {'j', &M::long_binget},
        {'c', &M::global},          {'R', &M::reduce},      {0x81, &M::newobj},    {'b', &M::build},
        {'Q', &M::binpersid}};
    for (const auto& [code, handler] : known) table[static_cast<size_t>(code)] = handler;
    return table;
  }();
  return kHandlers[opcode];
}

Result<PickleDocument> PickleMachine::run() {
  const auto refusal = [&] { return refuse(ErrorCode::kDataCorrupt, file_ + ": " + error_); };
  if (doc_.bytes_->size() > limits_.bytes) {
    fail("the pickle has " + std::to_string(doc_.bytes_->size()) + " bytes, at most " + std::to_string(limits_.bytes) +
         " are read");
    return refusal();
  }
  for (uint64_t count = 0;; ++count) {
    std::string_view byte;
    if (count >= limits_.opcodes) {
      fail("the pickle has more than " + std::to_string(limits_.opcodes) + " opcodes");
      return refusal();
    }
    if (!take(1, byte)) return refusal();
    const auto opcode = static_cast<unsigned char>(byte[0]);
    if (count == 0 && opcode != 0x80) {
      fail("the pickle does not begin with its protocol version");
      return refusal();
    }
    if (opcode == '.') break;
    const Handler handler = handler_of(opcode);
    if (handler == nullptr ? !fail_opcode(opcode) : !(this->*handler)()) return refusal();
  }
  if (stack_.size() != 1 || !marks_.empty() || (at_ != doc_.bytes_->size() && !may_be_followed_)) {
    fail("the pickle does not end with exactly one value");
    return refusal();
  }
  if (!dangerous_.empty()) {
    fail("the pickle holds " + dangerous_ + ", which can run code when a Python program uses it; refused");
    return refusal();
  }
  doc_.root_ = stack_.back();
  return std::move(doc_);
}

bool PickleMachine::fail(std::string what) {
  error_ = std::move(what);
  return false;
}

bool PickleMachine::fail_opcode(unsigned char opcode) {
  const std::string_view name = refused_opcode_name(opcode);
  if (name.empty()) return fail("the pickle is damaged: " + hex_byte(opcode) + " is not an opcode" + place());
  std::string target;
  if (name == "INST") {
    std::string_view module, leaf;
    if (take_line(module) && take_line(leaf)) target = printable(module) + "." + printable(leaf);
  } else if (name == "STACK_GLOBAL" && stack_.size() >= 2) {
    const ValueId module = stack_[stack_.size() - 2];
    const ValueId leaf = stack_.back();
    if (doc_.kind(module) == ValueKind::kString && doc_.kind(leaf) == ValueKind::kString) {
      target = printable(doc_.text(module)) + "." + printable(doc_.text(leaf));
    }
  }
  if (!target.empty()) {
    return fail("the pickle names " + target + " by opcode " + std::string(name) + place() + "; refused");
  }
  return fail("the pickle uses opcode " + std::string(name) + place() + ", which torch.save does not write; refused");
}

// The keys of the dictionaries that are being filled right now: under each mark, a dict and an odd number of values.
std::string PickleMachine::place() const {
  std::string text;
  const auto add = [&](ValueId key) {
    if (doc_.kind(key) != ValueKind::kString) return;
    text += (text.empty() ? " inside '" : " / '") + printable(doc_.text(key)) + "'";
  };
  const auto is_container = [&](size_t height) {
    return doc_.kind(stack_[height]) == ValueKind::kDict || doc_.kind(stack_[height]) == ValueKind::kOpaque;
  };
  const size_t bottom = marks_.empty() ? stack_.size() : marks_[0];
  if (bottom > 1 && is_container(0)) add(stack_[1]);  // a dict of one entry has no mark
  for (size_t i = 0; i < marks_.size(); ++i) {
    const size_t begin = marks_[i];
    size_t end = i + 1 < marks_.size() ? marks_[i + 1] : stack_.size();
    if (begin == 0 || begin > stack_.size() || !is_container(begin - 1)) continue;
    end = std::min(end, stack_.size());
    // Keys are at even places. The last key belongs to the value that is being built, unless that value is itself on
    // the stack.
    size_t key = end > begin ? begin + (end - begin - 1) / 2 * 2 : 0;
    while (key > begin && doc_.kind(stack_[key]) != ValueKind::kString) key -= 2;
    // A dict of one entry has no mark: its key follows the still empty dict.
    const bool is_in_single = key >= begin + 2 && doc_.kind(stack_[key - 1]) == ValueKind::kDict &&
                              doc_.dicts_[doc_.values_[stack_[key - 1]].index].empty();
    if (is_in_single) add(stack_[key - 2]);
    if (end > begin) add(stack_[key]);
  }
  return text;
}

bool PickleMachine::take(size_t count, std::string_view& out) {
  if (doc_.bytes_->size() - at_ < count) return fail("the pickle is cut at byte " + std::to_string(at_));
  out = std::string_view(*doc_.bytes_).substr(at_, count);
  at_ += count;
  return true;
}

bool PickleMachine::take_line(std::string_view& out) {
  const size_t end = doc_.bytes_->find('\n', at_);
  if (end == std::string::npos || end - at_ > limits_.key_bytes) {
    return fail("the pickle is damaged: a name does not end at byte " + std::to_string(at_));
  }
  out = std::string_view(*doc_.bytes_).substr(at_, end - at_);
  at_ = end + 1;
  return true;
}

bool PickleMachine::take_number(size_t bytes, uint64_t& out) {
  std::string_view raw;
  if (!take(bytes, raw)) return false;
  out = 0;
  for (size_t i = 0; i < bytes; ++i) out |= static_cast<uint64_t>(static_cast<unsigned char>(raw[i])) << (8 * i);
  return true;
}

bool PickleMachine::charge(uint64_t bytes) {
  arena_ += bytes;
  if (arena_ <= limits_.arena_bytes) return true;
  return fail("the pickle's values take more than " + std::to_string(limits_.arena_bytes) + " bytes");
}

bool PickleMachine::push(Value value) {
  if (!charge(sizeof(Value) + sizeof(ValueId))) return false;
  stack_.push_back(static_cast<ValueId>(doc_.values_.size()));
  doc_.values_.push_back(value);
  return true;
}

bool PickleMachine::push_int(int64_t number) {
  Value value{ValueKind::kInt, 0, {}};
  value.integer = number;
  return push(value);
}

bool PickleMachine::push_text(std::string_view text) {
  if (!charge(sizeof(std::string_view))) return false;
  doc_.texts_.push_back(text);
  return push({ValueKind::kString, static_cast<uint32_t>(doc_.texts_.size() - 1), {}});
}

bool PickleMachine::push_sequence(ValueKind kind, std::vector<ValueId> items) {
  if (!charge(sizeof items + items.size() * sizeof(ValueId))) return false;
  doc_.sequences_.push_back(std::move(items));
  return push({kind, static_cast<uint32_t>(doc_.sequences_.size() - 1), {}});
}

bool PickleMachine::push_opaque(uint32_t name) {
  if (!charge(sizeof(PickleDocument::Opaque))) return false;
  doc_.opaques_.push_back({name, std::nullopt});
  return push({ValueKind::kOpaque, static_cast<uint32_t>(doc_.opaques_.size() - 1), {}});
}

bool PickleMachine::pop(ValueId& out) {
  const size_t floor = marks_.empty() ? 0 : marks_.back();
  if (stack_.size() <= floor) return fail("the pickle is damaged: it takes from an empty stack" + place());
  out = stack_.back();
  stack_.pop_back();
  return true;
}

bool PickleMachine::top(ValueId& out) {
  if (!pop(out)) return false;
  stack_.push_back(out);
  return true;
}

bool PickleMachine::pop_to_mark(std::vector<ValueId>& out) {
  if (marks_.empty()) return fail("the pickle is damaged: no mark" + place());
  out.assign(stack_.begin() + static_cast<int64_t>(marks_.back()), stack_.end());
  stack_.resize(marks_.back());
  marks_.pop_back();
  return true;
}

bool PickleMachine::proto() {
  uint64_t version = 0;
  if (!take_number(1, version)) return false;
  if (version == kProtocol) return true;
  return fail("pickle protocol is " + std::to_string(version) + ", expected 2 (what torch.save writes)");
}

bool PickleMachine::mark() {
  if (marks_.size() >= limits_.mark_depth) {
    return fail("the pickle nests deeper than " + std::to_string(limits_.mark_depth));
  }
  marks_.push_back(stack_.size());
  return true;
}

bool PickleMachine::none() { return push({}); }

bool PickleMachine::true_value() {
  Value value{ValueKind::kBool, 0, {}};
  value.integer = 1;
  return push(value);
}

bool PickleMachine::false_value() { return push({ValueKind::kBool, 0, {}}); }

bool PickleMachine::binint() {
  uint64_t number = 0;
  return take_number(4, number) && push_int(static_cast<int32_t>(number));
}

bool PickleMachine::binint1() {
  uint64_t number = 0;
  return take_number(1, number) && push_int(static_cast<int64_t>(number));
}

bool PickleMachine::binint2() {
  uint64_t number = 0;
  return take_number(2, number) && push_int(static_cast<int64_t>(number));
}

// Two's complement, little-endian. Numbers above 64 bits (states of random generators) are not needed here.
bool PickleMachine::long1() {
  uint64_t length = 0;
  std::string_view raw;
  if (!take_number(1, length) || !take(length, raw)) return false;
  if (length > 8) {
    doc_.names_.push_back("int");
    return charge(sizeof(std::string)) && push_opaque(static_cast<uint32_t>(doc_.names_.size() - 1));
  }
  uint64_t number = length > 0 && static_cast<unsigned char>(raw.back()) >= 0x80 ? ~uint64_t{0} : 0;
  for (size_t i = length; i > 0; --i) number = (number << 8) | static_cast<unsigned char>(raw[i - 1]);
  return push_int(static_cast<int64_t>(number));
}

bool PickleMachine::binfloat() {
  std::string_view raw;
  if (!take(8, raw)) return false;
  uint64_t bits = 0;
  for (char byte : raw) bits = (bits << 8) | static_cast<unsigned char>(byte);
  Value value{ValueKind::kFloat, 0, {}};
  value.real = std::bit_cast<double>(bits);
  return push(value);
}

bool PickleMachine::binunicode() {
  uint64_t length = 0;
  std::string_view text;
  return take_number(4, length) && take(length, text) && push_text(text);
}

bool PickleMachine::binstring() { return binunicode(); }

bool PickleMachine::short_binstring() {
  uint64_t length = 0;
  std::string_view text;
  return take_number(1, length) && take(length, text) && push_text(text);
}

bool PickleMachine::empty_dict() {
  if (!charge(sizeof doc_.dicts_[0])) return false;
  doc_.dicts_.emplace_back();
  return push({ValueKind::kDict, static_cast<uint32_t>(doc_.dicts_.size() - 1), {}});
}

bool PickleMachine::empty_list() { return push_sequence(ValueKind::kList, {}); }
bool PickleMachine::empty_tuple() { return push_sequence(ValueKind::kTuple, {}); }

bool PickleMachine::tuple() {
  std::vector<ValueId> items;
  return pop_to_mark(items) && push_sequence(ValueKind::kTuple, std::move(items));
}

bool PickleMachine::push_top_as_tuple(size_t count) {
  std::vector<ValueId> items(count);
  for (size_t i = count; i > 0; --i) {
    if (!pop(items[i - 1])) return false;
  }
  return push_sequence(ValueKind::kTuple, std::move(items));
}

bool PickleMachine::tuple1() { return push_top_as_tuple(1); }
bool PickleMachine::tuple2() { return push_top_as_tuple(2); }
bool PickleMachine::tuple3() { return push_top_as_tuple(3); }

bool PickleMachine::put(uint64_t key) {
  ValueId value = 0;
  if (!top(value)) return false;
  if (!memo_.contains(key)) {
    if (memo_.size() >= limits_.memo_entries) {
      return fail("the pickle remembers more than " + std::to_string(limits_.memo_entries) + " values");
    }
    if (!charge(4 * sizeof(uint64_t))) return false;
  }
  memo_[key] = value;
  return true;
}

bool PickleMachine::get(uint64_t key) {
  const auto found = memo_.find(key);
  if (found == memo_.end()) return fail("the pickle is damaged: memo " + std::to_string(key) + " is empty");
  if (!charge(sizeof(ValueId))) return false;
  stack_.push_back(found->second);
  return true;
}

bool PickleMachine::binput() {
  uint64_t key = 0;
  return take_number(1, key) && put(key);
}

bool PickleMachine::long_binput() {
  uint64_t key = 0;
  return take_number(4, key) && put(key);
}

bool PickleMachine::binget() {
  uint64_t key = 0;
  return take_number(1, key) && get(key);
}

bool PickleMachine::long_binget() {
  uint64_t key = 0;
  return take_number(4, key) && get(key);
}

}  // namespace optserve::checkpoint
