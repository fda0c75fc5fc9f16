#include "checkpoint/torch/pickle_writer.h"

#include "base/check.h"

namespace optserve::checkpoint {
namespace {

// Opcodes of protocol 2.
constexpr std::string_view kProtocol2("\x80\x02", 2);
constexpr char kMark = '(';
constexpr char kEmptyDict = '}';
constexpr char kEmptyTuple = ')';
constexpr char kSetItems = 'u';
constexpr char kTuple = 't';
constexpr char kUnicode = 'X';
constexpr char kInt32 = 'J';
constexpr std::string_view kLong8("\x8a\x08", 2);  // eight bytes follow
constexpr char kTrue = '\x88';
constexpr char kFalse = '\x89';
constexpr char kReduce = 'R';
constexpr char kPersistentId = 'Q';
constexpr char kStop = '.';

std::string little(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xff);
  return text;
}

std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}

std::string_view storage_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "FloatStorage";
    case DType::kF16:
      return "HalfStorage";
    case DType::kBF16:
      return "BFloat16Storage";
    default:
      check_failed("PickleWriter: a type that checkpoints do not have", std::source_location::current());
  }
}

}  // namespace

void PickleWriter::begin_dict() { (body_ += kEmptyDict) += kMark; }
void PickleWriter::end_dict() { body_ += kSetItems; }

void PickleWriter::text(std::string_view value) {
  check(value.size() <= UINT32_MAX, "PickleWriter::text: length");
  ((body_ += kUnicode) += little(value.size(), 4)) += value;
}

void PickleWriter::integer(int64_t value) {
  if (value >= INT32_MIN && value <= INT32_MAX) {
    (body_ += kInt32) += little(static_cast<uint64_t>(value), 4);
  } else {
    (body_ += kLong8) += little(static_cast<uint64_t>(value), 8);
  }
}

void PickleWriter::boolean(bool value) { body_ += value ? kTrue : kFalse; }

void PickleWriter::numbers(const std::vector<int64_t>& values) {
  body_ += kMark;
  for (int64_t value : values) integer(value);
  body_ += kTuple;
}

void PickleWriter::tensor(size_t storage, DType dtype, const std::vector<int64_t>& shape) {
  std::vector<int64_t> stride(shape.size(), 1);
  for (size_t axis = shape.size(); axis-- > 1;) stride[axis - 1] = stride[axis] * shape[axis];
  const int64_t elements = shape.empty() ? 1 : stride[0] * shape[0];
  (body_ += global("torch._utils", "_rebuild_tensor_v2")) += kMark;
  body_ += kMark;
  text("storage");
  body_ += global("torch", storage_name(dtype));
  text(std::to_string(storage));
  text("cpu");
  integer(elements);
  (body_ += kTuple) += kPersistentId;
  integer(0);  // offset
  numbers(shape);
  numbers(stride);
  boolean(false);                                                               // requires_grad
  ((body_ += global("collections", "OrderedDict")) += kEmptyTuple) += kReduce;  // no hooks
  (body_ += kTuple) += kReduce;
}

std::string PickleWriter::finish() const { return std::string(kProtocol2) + body_ + kStop; }

}  // namespace optserve::checkpoint
