#include "checkpoint/torch/zip.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "base/hex.h"
#include "base/sha256.h"
#include "checkpoint/torch/zip_format.h"

namespace optserve::checkpoint {
namespace {

using namespace zip_format;

constexpr size_t kNameMax = 600;

static_assert(std::endian::native == std::endian::little);

// Reads little-endian fields from a block of bytes. The caller has checked that the block is long enough.
class Fields {
 public:
  explicit Fields(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint16_t u16(size_t at) const { return load<uint16_t>(at); }
  uint32_t u32(size_t at) const { return load<uint32_t>(at); }
  uint64_t u64(size_t at) const { return load<uint64_t>(at); }

 private:
  template <class T>
  T load(size_t at) const {
    T value;
    std::memcpy(&value, bytes_.subspan(at).first(sizeof value).data(), sizeof value);
    return value;
  }
  std::span<const std::byte> bytes_;
};

struct Directory {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t entries = 0;
};

Refusal bad_zip(const ByteSource& file, const std::string& what) {
  return refuse(ErrorCode::kDataCorrupt, file.name() + ": not a checkpoint that torch.save wrote: " + what);
}

// True if a field of the plain end record matches its 64-bit counterpart: it is equal, or saturated.
bool agrees(uint64_t plain, uint64_t wide, uint64_t saturated) { return plain == wide || plain == saturated; }

Result<Directory> read_end64(const ByteSource& file, const Fields& end) {
  std::array<std::byte, kEnd64Bytes + kLocator64Bytes> bytes{};
  if (file.size() < kEndBytes + bytes.size()) return bad_zip(file, "the zip64 end record is cut");
  const uint64_t record_offset = file.size() - kEndBytes - bytes.size();
  file.read_at(record_offset, bytes);
  const Fields record(std::span<const std::byte>(bytes).first(kEnd64Bytes));
  const Fields locator(std::span<const std::byte>(bytes).subspan(kEnd64Bytes));
  if (record.u32(0) != kEnd64Signature || record.u64(4) != kEnd64Bytes - 12 || locator.u64(8) != record_offset ||
      locator.u32(4) != 0 || locator.u32(16) > 1 || record.u32(16) != 0 || record.u32(20) != 0 ||
      record.u64(24) != record.u64(32)) {
    return bad_zip(file, "the zip64 end record is malformed");
  }
  const Directory directory{record.u64(48), record.u64(40), record.u64(32)};
  if (!agrees(end.u16(10), directory.entries, 0xffff) || !agrees(end.u32(12), directory.bytes, 0xffffffff) ||
      !agrees(end.u32(16), directory.offset, 0xffffffff)) {
    return bad_zip(file, "its two end records contradict each other");
  }
  if (directory.offset > record_offset || record_offset - directory.offset != directory.bytes) {
    return bad_zip(file, "the directory does not end where the end record begins");
  }
  return directory;
}

Result<Directory> find_directory(const ByteSource& file) {
  if (file.size() < kEndBytes) return bad_zip(file, "the file has " + std::to_string(file.size()) + " bytes");
  std::array<std::byte, kEndBytes> bytes{};
  file.read_at(file.size() - kEndBytes, bytes);
  const Fields end(bytes);
  if (end.u32(0) != kEndSignature || end.u16(20) != 0) {
    return bad_zip(file, "it does not end like a zip file (is it cut, or of the format before PyTorch 1.6?)");
  }
  if (end.u16(4) != 0 || end.u16(6) != 0 || end.u16(8) != end.u16(10)) return bad_zip(file, "it spans several disks");
  if (file.size() >= kEndBytes + kLocator64Bytes) {
    std::array<std::byte, 4> signature{};
    file.read_at(file.size() - kEndBytes - kLocator64Bytes, signature);
    if (Fields(signature).u32(0) == kLocator64Signature) return read_end64(file, end);
  }
  const Directory directory{end.u32(16), end.u32(12), end.u16(10)};
  const uint64_t end_offset = file.size() - kEndBytes;
  if (directory.offset > end_offset || end_offset - directory.offset != directory.bytes) {
    return bad_zip(file, "the directory does not end where the end record begins");
  }
  return directory;
}

struct Member {
  ZipEntry entry;
  uint64_t header_offset = 0;
  uint16_t flags = 0;
};

// Replaces saturated fields by their values in the zip64 extra field, which holds them in a fixed order.
bool widen(std::span<const std::byte> extra, std::initializer_list<uint64_t*> fields) {
  std::optional<std::span<const std::byte>> wide;
  while (!extra.empty()) {
    if (extra.size() < 4) return false;
    const Fields head(extra);
    const size_t length = head.u16(2);
    if (extra.size() - 4 < length) return false;
    if (head.u16(0) == kExtra64) {
      if (wide) return false;
      wide = extra.subspan(4, length);
    }
    extra = extra.subspan(4 + length);
  }
  size_t at = 0;
  for (uint64_t* field : fields) {
    if (*field != 0xffffffff) continue;
    if (!wide || wide->size() < at + 8) return false;
    *field = Fields(*wide).u64(at);
    at += 8;
  }
  return true;
}

// Parses one record of the directory; sets `length` to the number of bytes it takes.
Result<Member> parse_record(const ByteSource& file, std::span<const std::byte> bytes, uint64_t& length) {
  if (bytes.size() < kDirectoryBytes) return bad_zip(file, "the directory is cut");
  const Fields fields(bytes);
  if (fields.u32(0) != kDirectorySignature) return bad_zip(file, "the directory is malformed");
  const size_t name_bytes = fields.u16(28);
  const size_t extra_bytes = fields.u16(30);
  length = kDirectoryBytes + name_bytes + extra_bytes;
  if (fields.u16(32) != 0 || name_bytes == 0 || name_bytes > kNameMax || bytes.size() < length) {
    return bad_zip(file, "a directory entry is malformed");
  }
  Member member;
  member.entry.name.assign(reinterpret_cast<const char*>(bytes.data()) + kDirectoryBytes, name_bytes);
  const auto fault = [&](const char* what) { return bad_zip(file, "member '" + member.entry.name + "' " + what); };
  if (member.entry.name.find('\0') != std::string::npos) return bad_zip(file, "a member's name holds a zero byte");
  member.flags = fields.u16(8);
  if ((member.flags & 1) != 0) return fault("is encrypted");
  if ((member.flags & ~(kFlagDescriptor | kFlagUtf8)) != 0) return fault("has unknown flags");
  if (fields.u16(10) != 0) return fault("is compressed; torch.save stores members as they are");
  uint64_t packed = fields.u32(20);
  member.entry.crc32 = fields.u32(16);
  member.entry.bytes = fields.u32(24);
  member.header_offset = fields.u32(42);
  if (!widen(bytes.subspan(kDirectoryBytes + name_bytes, extra_bytes),
             {&member.entry.bytes, &packed, &member.header_offset})) {
    return fault("has a malformed extra field");
  }
  if (packed != member.entry.bytes) return fault("has two different sizes");
  return member;
}

// Compares the local header with the directory and finds where the data begins.
Status resolve(const ByteSource& file, const Directory& directory, Member& member) {
  const auto fault = [&](const char* what) { return bad_zip(file, "member '" + member.entry.name + "' " + what); };
  std::array<std::byte, kLocalBytes> head{};
  if (member.header_offset > directory.offset || directory.offset - member.header_offset < kLocalBytes) {
    return fault("begins outside of the file");
  }
  file.read_at(member.header_offset, head);
  const Fields fields(head);
  const size_t name_bytes = fields.u16(26);
  const size_t extra_bytes = fields.u16(28);
  if (fields.u32(0) != kLocalSignature || fields.u16(8) != 0 || name_bytes != member.entry.name.size() ||
      fields.u16(6) != member.flags) {
    return fault("has a local header that contradicts the directory");
  }
  member.entry.offset = member.header_offset + kLocalBytes + name_bytes + extra_bytes;
  if (member.entry.offset > directory.offset || directory.offset - member.entry.offset < member.entry.bytes) {
    return fault("reaches outside of the file");
  }
  std::vector<std::byte> rest(name_bytes + extra_bytes);
  file.read_at(member.header_offset + kLocalBytes, rest);
  if (std::memcmp(rest.data(), member.entry.name.data(), name_bytes) != 0) {
    return fault("has another name in its local header");
  }
  if ((member.flags & kFlagDescriptor) != 0) return ok_status();  // sizes may follow the data instead
  uint64_t bytes = fields.u32(22);
  uint64_t packed = fields.u32(18);
  if (!widen(std::span<const std::byte>(rest).subspan(name_bytes), {&bytes, &packed}) || bytes != member.entry.bytes ||
      packed != member.entry.bytes || fields.u32(14) != member.entry.crc32) {
    return fault("has a local header that contradicts the directory");
  }
  return ok_status();
}

Result<std::vector<Member>> parse_directory(const ByteSource& file, const Directory& directory,
                                            std::span<const std::byte> bytes) {
  std::vector<Member> members;
  while (!bytes.empty()) {
    uint64_t length = 0;
    Result<Member> member = parse_record(file, bytes, length);
    if (!member.ok()) return member.refusal();
    if (Status status = resolve(file, directory, member.value()); !status.ok()) return status.refusal();
    members.push_back(std::move(member).value());
    if (members.size() > directory.entries) break;
    bytes = bytes.subspan(length);
  }
  if (members.size() != directory.entries) return bad_zip(file, "the directory has another length than announced");
  return members;
}

}  // namespace

const ZipEntry* ZipDirectory::find(std::string_view name) const {
  const auto found = index.find(std::string(name));
  return found == index.end() ? nullptr : &entries[found->second];
}

Result<ZipDirectory> read_zip(const ByteSource& file) {
  const Result<Directory> directory = find_directory(file);
  if (!directory.ok()) return directory.refusal();
  if (directory.value().entries > kZipEntriesMax || directory.value().bytes > kZipDirectoryMax) {
    return bad_zip(file, "it has " + std::to_string(directory.value().entries) + " members in a directory of " +
                             std::to_string(directory.value().bytes) + " bytes; at most " +
                             std::to_string(kZipEntriesMax) + " and 64 MiB are read");
  }
  std::vector<std::byte> bytes(directory.value().bytes);
  file.read_at(directory.value().offset, bytes);
  Result<std::vector<Member>> parsed = parse_directory(file, directory.value(), bytes);
  if (!parsed.ok()) return parsed.refusal();
  std::vector<Member>& members = parsed.value();
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.header_offset < b.header_offset; });
  ZipDirectory zip;
  uint64_t end = 0;
  for (Member& member : members) {
    if (zip.entries.empty() && member.header_offset != 0) return bad_zip(file, "bytes precede the first member");
    if (member.header_offset < end) return bad_zip(file, "member '" + member.entry.name + "' overlaps another");
    end = member.entry.offset + member.entry.bytes;
    if (!zip.index.emplace(member.entry.name, zip.entries.size()).second) {
      return bad_zip(file, "member '" + member.entry.name + "' occurs twice");
    }
    zip.entries.push_back(std::move(member.entry));
  }
  Sha256 hash;
  hash.update(bytes);
  zip.sha256 = to_hex(hash.finish());
  return zip;
}

}  // namespace optserve::checkpoint
