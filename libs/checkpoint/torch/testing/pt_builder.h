// For tests: builds valid and invalid pickles, zip files and torch.save files in memory.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/torch/crc32.h"
#include "tensor/dtype.h"

namespace optserve::checkpoint::testing {

inline std::string little(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xff);
  return text;
}

// Opcodes of protocol 2, concatenated by +.
namespace op {
inline const std::string kProto = std::string("\x80\x02", 2);
inline const std::string kMark = "(";
inline const std::string kDict = "}";
inline const std::string kList = "]";
inline const std::string kSetItems = "u";
inline const std::string kReduce = "R";
inline const std::string kStop = ".";
inline std::string text(std::string_view value) { return "X" + little(value.size(), 4) + std::string(value); }
inline std::string integer(int64_t value) { return "\x8a\x08" + little(static_cast<uint64_t>(value), 8); }
inline std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}
inline std::string tuple(const std::vector<std::string>& items) {
  std::string all = kMark;
  for (const std::string& item : items) all += item;
  return all + "t";
}
inline std::string numbers(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (int64_t value : values) items.push_back(integer(value));
  return tuple(items);
}
inline std::string call(const std::string& callable, const std::vector<std::string>& arguments) {
  return callable + tuple(arguments) + kReduce;
}
inline std::string dict(const std::vector<std::pair<std::string, std::string>>& entries) {  // keys are texts
  std::string all = kDict + kMark;
  for (const auto& [key, value] : entries) all += text(key) + value;
  return all + kSetItems;
}
inline std::string name_space(const std::vector<std::pair<std::string, std::string>>& attributes) {
  return global("argparse", "Namespace") + ")\x81" + dict(attributes) + "b";
}
inline std::string storage(std::string_view type, std::string_view key, int64_t numel) {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), integer(numel)}) + "Q";
}
inline std::string tensor(const std::string& storage, int64_t offset, const std::vector<int64_t>& shape,
                          const std::vector<int64_t>& stride) {
  return call(global("torch._utils", "_rebuild_tensor_v2"), {storage, integer(offset), numbers(shape), numbers(stride),
                                                             "\x89", global("collections", "OrderedDict") + ")R"});
}
}  // namespace op

struct ZipMember {
  std::string name;
  std::string data;
  uint16_t method = 0;
  uint16_t flags = 0;
};

// A plain zip file; with `wide`, every size and offset is in zip64 records.
inline std::string zip_bytes(const std::vector<ZipMember>& members, bool wide = false) {
  std::string file, directory;
  for (const ZipMember& member : members) {
    const uint64_t offset = file.size();
    const uint32_t crc = crc32(0, std::as_bytes(std::span(member.data)));
    const std::string extra =
        wide ? little(1, 2) + little(16, 2) + little(member.data.size(), 8) + little(member.data.size(), 8) : "";
    const std::string size = wide ? little(0xffffffff, 4) : little(member.data.size(), 4);
    const std::string common = little(45, 2) + little(member.flags, 2) + little(member.method, 2) + little(0, 4) +
                               little(crc, 4) + size + size + little(member.name.size(), 2);
    file += little(0x04034b50, 4) + common + little(extra.size(), 2) + member.name + extra + member.data;
    const std::string wide_extra = wide ? little(1, 2) + little(24, 2) + little(member.data.size(), 8) +
                                              little(member.data.size(), 8) + little(offset, 8)
                                        : "";
    directory += little(0x02014b50, 4) + little(45, 2) + common + little(wide_extra.size(), 2) + little(0, 2) +
                 little(0, 2) + little(0, 2) + little(0, 4) + (wide ? little(0xffffffff, 4) : little(offset, 4)) +
                 member.name + wide_extra;
  }
  const uint64_t begin = file.size();
  file += directory;
  if (wide) {
    const uint64_t record = file.size();
    file += little(0x06064b50, 4) + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 8) +
            little(members.size(), 8) + little(members.size(), 8) + little(directory.size(), 8) + little(begin, 8);
    file += little(0x07064b50, 4) + little(0, 4) + little(record, 8) + little(1, 4);
  }
  const uint64_t count = wide ? 0xffff : members.size();
  return file + little(0x06054b50, 4) + little(0, 4) + little(count, 2) + little(count, 2) +
         little(wide ? 0xffffffff : directory.size(), 4) + little(wide ? 0xffffffff : begin, 4) + little(0, 2);
}

inline std::string_view storage_type(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return "HalfStorage";
    case DType::kBF16:
      return "BFloat16Storage";
    case DType::kF64:
      return "DoubleStorage";
    case DType::kI64:
      return "LongStorage";
    default:
      return "FloatStorage";
  }
}

// One torch.save file: storages, and a dictionary 'model' of views into them beside other top-level entries.
class PtBuilder {
 public:
  // Returns the storage's number. `bytes` is its content.
  size_t add_storage(DType dtype, std::string bytes) {
    storages_.push_back({dtype, std::move(bytes)});
    return storages_.size() - 1;
  }
  void add_view(const std::string& name, size_t storage, int64_t offset, const std::vector<int64_t>& shape,
                const std::vector<int64_t>& stride) {
    model_.emplace_back(name, op::tensor(storage_pickle(storage), offset, shape, stride));
  }
  // A contiguous tensor with a storage of its own.
  void add_tensor(const std::string& name, DType dtype, const std::vector<int64_t>& shape, std::string bytes) {
    std::vector<int64_t> stride(shape.size(), 1);
    for (size_t axis = shape.size(); axis-- > 1;) stride[axis - 1] = stride[axis] * shape[axis];
    add_view(name, add_storage(dtype, std::move(bytes)), 0, shape, stride);
  }
  void add_to_model(const std::string& name, const std::string& pickled) { model_.emplace_back(name, pickled); }
  void add_top_level(const std::string& name, const std::string& pickled) { top_.emplace_back(name, pickled); }

  std::string pickle() const {
    std::vector<std::pair<std::string, std::string>> top = top_;
    top.emplace_back("model", op::dict(model_));
    return op::kProto + op::dict(top) + op::kStop;
  }
  std::vector<ZipMember> members() const {
    std::vector<ZipMember> all = {{"archive/data.pkl", pickle()}, {"archive/version", "3\n"}};
    for (size_t i = 0; i < storages_.size(); ++i) {
      all.push_back({"archive/data/" + std::to_string(i), storages_[i].second});
    }
    return all;
  }
  std::string file() const { return zip_bytes(members()); }

 private:
  std::string storage_pickle(size_t index) const {
    const auto& [dtype, bytes] = storages_[index];
    return op::storage(storage_type(dtype), std::to_string(index),
                       static_cast<int64_t>(bytes.size() / dtype_bytes(dtype)));
  }

  std::vector<std::pair<DType, std::string>> storages_;
  std::vector<std::pair<std::string, std::string>> model_;
  std::vector<std::pair<std::string, std::string>> top_;
};

}  // namespace optserve::checkpoint::testing
