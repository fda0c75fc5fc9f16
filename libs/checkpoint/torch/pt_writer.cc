#include "checkpoint/torch/pt_writer.h"

#include <utility>

#include "base/check.h"
#include "checkpoint/torch/crc32.h"
#include "checkpoint/torch/zip_format.h"

namespace optserve::checkpoint {
namespace {

using namespace zip_format;

constexpr uint16_t kFlags = kFlagUtf8 | kFlagDescriptor;
constexpr uint16_t kVersion = 45;           // zip64
constexpr uint16_t kExtraPadding = 0x4246;  // "FB", PyTorch's own
constexpr uint64_t kAlignment = 64;         // of data, as PyTorch has it
constexpr uint32_t kSaturated = UINT32_MAX;
const std::string kRoot = "archive/";

// A record of little-endian fields, one after another.
class Record {
 public:
  Record& u16(uint64_t value) { return number(value, 2); }
  Record& u32(uint64_t value) { return number(value, 4); }
  Record& u64(uint64_t value) { return number(value, 8); }
  Record& text(std::string_view value) {
    bytes_ += value;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  Record& number(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) bytes_ += static_cast<char>(value >> (8 * i) & 0xff);
    return *this;
  }
  std::string bytes_;
};

}  // namespace

PtWriter::PtWriter(OutputFile file, std::string_view pickle, uint64_t wide_from)
    : file_(std::move(file)), wide_from_(wide_from) {
  check(wide_from <= kSaturated, "PtWriter: plain fields have 32 bits");
  add_member("data.pkl", pickle);
}

void PtWriter::put(std::string_view text) { file_.append(std::as_bytes(std::span(text))); }

// Dates and attributes are zero, so that the bytes depend on the content only.
void PtWriter::begin_member(const std::string& name, uint64_t bytes) {
  check(!is_open_, "PtWriter: a member within another");
  member_ = {kRoot + name, file_.bytes(), bytes, 0};
  left_ = bytes;
  is_open_ = true;
  const bool wide = is_wide(bytes);
  Record extra;
  if (wide) extra.u16(kExtra64).u16(16).u64(0).u64(0);
  const uint64_t begin = member_.offset + kLocalBytes + member_.name.size() + extra.bytes().size() + 4;
  const uint64_t padding = (kAlignment - begin % kAlignment) % kAlignment;
  extra.u16(kExtraPadding).u16(padding).text(std::string(padding, 'Z'));
  const uint32_t size = wide ? kSaturated : 0;
  put(Record()
          .u32(kLocalSignature)
          .u16(wide ? kVersion : 0)
          .u16(kFlags)
          .u16(0)  // stored
          .u32(0)  // time and date
          .u32(0)  // checksum: in the descriptor
          .u32(size)
          .u32(size)
          .u16(member_.name.size())
          .u16(extra.bytes().size())
          .text(member_.name)
          .text(extra.bytes())
          .bytes());
}

void PtWriter::append(std::span<const std::byte> bytes) {
  check(is_open_ && bytes.size() <= left_, "PtWriter::append: more bytes than the storage has");
  member_.crc = crc32(member_.crc, bytes);
  left_ -= bytes.size();
  file_.append(bytes);
}

void PtWriter::end_member() {
  if (!is_open_) return;
  check_eq(left_, uint64_t{0}, "PtWriter: bytes that the storage still lacks");
  is_open_ = false;
  ++members_;
  const bool wide = is_wide(member_.bytes);
  Record descriptor;
  descriptor.u32(kDescriptorSignature).u32(member_.crc);
  if (wide) {
    descriptor.u64(member_.bytes).u64(member_.bytes);
  } else {
    descriptor.u32(member_.bytes).u32(member_.bytes);
  }
  put(descriptor.bytes());
  Record extra;
  const bool is_far = is_wide(member_.offset);
  if (wide) extra.u64(member_.bytes).u64(member_.bytes);
  if (is_far) extra.u64(member_.offset);
  const std::string fields = extra.bytes();
  const std::string extra64 = fields.empty() ? "" : Record().u16(kExtra64).u16(fields.size()).text(fields).bytes();
  const uint64_t size = wide ? kSaturated : member_.bytes;
  directory_ += Record()
                    .u32(kDirectorySignature)
                    .u16(0)
                    .u16(extra64.empty() ? 0 : kVersion)
                    .u16(kFlags)
                    .u16(0)
                    .u32(0)
                    .u32(member_.crc)
                    .u32(size)
                    .u32(size)
                    .u16(member_.name.size())
                    .u16(extra64.size())
                    .u16(0)  // comment
                    .u16(0)  // disk
                    .u16(0)  // attributes
                    .u32(0)
                    .u32(is_far ? kSaturated : member_.offset)
                    .text(member_.name)
                    .text(extra64)
                    .bytes();
}

void PtWriter::add_member(const std::string& name, std::string_view content) {
  begin_member(name, content.size());
  append(std::as_bytes(std::span(content)));
  end_member();
}

void PtWriter::begin_storage(uint64_t bytes) {
  end_member();
  begin_member("data/" + std::to_string(storages_++), bytes);
}

FileEntry PtWriter::finish() {
  end_member();
  add_member("version", "3\n");
  const uint64_t begin = file_.bytes();
  put(directory_);
  const uint64_t record = file_.bytes();
  const uint64_t size = record - begin;
  put(Record()
          .u32(kEnd64Signature)
          .u64(44)
          .u16(kVersion)
          .u16(kVersion)
          .u32(0)
          .u32(0)
          .u64(members_)
          .u64(members_)
          .u64(size)
          .u64(begin)
          .bytes());
  put(Record().u32(kLocator64Signature).u32(0).u64(record).u32(1).bytes());
  const uint64_t count = members_ < UINT16_MAX ? members_ : UINT16_MAX;
  put(Record()
          .u32(kEndSignature)
          .u32(0)
          .u16(count)
          .u16(count)
          .u32(is_wide(size) ? kSaturated : size)
          .u32(is_wide(begin) ? kSaturated : begin)
          .u16(0)
          .bytes());
  return file_.finish();
}

}  // namespace optserve::checkpoint
