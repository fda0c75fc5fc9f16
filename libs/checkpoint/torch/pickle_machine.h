// The stack machine that runs a pickle's opcodes over typed values. It is internal to the pickle reader; tests use
// read_pickle().
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "checkpoint/torch/pickle.h"

namespace optserve::checkpoint {

class PickleMachine {
 public:
  PickleMachine(std::string bytes, std::string_view file, const PickleLimits& limits);
  Result<PickleDocument> run();

  // Accepts bytes after the pickle; bytes_read() then says where it ended.
  void may_be_followed() { may_be_followed_ = true; }
  size_t bytes_read() const { return at_; }

 private:
  using Handler = bool (PickleMachine::*)();
  using Value = PickleDocument::Value;

  static Handler handler_of(unsigned char opcode);

  // Reading the byte stream. Each fails if the pickle ends first.
  bool take(size_t count, std::string_view& out);
  bool take_line(std::string_view& out);
  bool take_number(size_t bytes, uint64_t& out);  // little-endian

  // One handler per opcode or family of opcodes. False means that the pickle is refused, and error_ says why.
  bool proto();
  bool mark();
  bool none();
  bool true_value();
  bool false_value();
  bool binint();
  bool binint1();
  bool binint2();
  bool long1();
  bool binfloat();
  bool binunicode();
  bool binstring();
  bool short_binstring();
  bool empty_dict();
  bool empty_list();
  bool empty_tuple();
  bool tuple();
  bool tuple1();
  bool tuple2();
  bool tuple3();
  bool append();
  bool appends();
  bool setitem();
  bool setitems();
  bool binput();
  bool long_binput();
  bool binget();
  bool long_binget();
  bool global();
  bool reduce();
  bool newobj();
  bool build();
  bool binpersid();

  // Building blocks.
  bool push(Value value);
  bool push_int(int64_t number);
  bool push_text(std::string_view text);
  bool push_sequence(ValueKind kind, std::vector<ValueId> items);
  bool push_top_as_tuple(size_t count);
  bool push_opaque(uint32_t name);
  bool pop(ValueId& out);
  bool top(ValueId& out);  // leaves it on the stack
  bool pop_to_mark(std::vector<ValueId>& out);
  bool put(uint64_t key);
  bool get(uint64_t key);
  bool charge(uint64_t bytes);  // against limits_.arena_bytes
  bool store_pairs(ValueId target, const std::vector<ValueId>& items);
  bool append_items(ValueId target, const std::vector<ValueId>& items);

  // Calls of the few globals that mean something.
  bool call(ValueId callable, ValueId arguments, std::string_view how);
  bool check_harmless(ValueId callable, ValueId arguments, std::string_view how);
  bool call_ordered_dict(const std::vector<ValueId>& arguments);
  bool call_rebuild_tensor(const std::vector<ValueId>& arguments);
  bool call_rebuild_parameter(const std::vector<ValueId>& arguments);
  bool call_torch_size(const std::vector<ValueId>& arguments);
  bool sizes_of(ValueId id, std::vector<int64_t>& out);
  bool check_view(const PickleTensor& tensor);

  bool fail(std::string what);
  bool fail_opcode(unsigned char opcode);
  std::string place() const;  // "'model' / 'decoder.version'": the keys that lead to the value being read

  const PickleLimits limits_;
  const std::string file_;
  PickleDocument doc_;
  bool may_be_followed_ = false;
  size_t at_ = 0;
  uint64_t arena_ = 0;
  std::vector<ValueId> stack_;
  std::vector<size_t> marks_;  // stack heights
  std::unordered_map<uint64_t, ValueId> memo_;
  std::unordered_map<std::string_view, uint32_t> storage_by_key_;
  std::string dangerous_;  // the first such name in the pickle, and its place
  std::string error_;
};

}  // namespace optserve::checkpoint
