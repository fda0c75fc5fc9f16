#include "checkpoint/torch/pt_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "base/check.h"
#include "base/hex.h"
#include "base/sha256.h"
#include "checkpoint/torch/crc32.h"

namespace optserve::checkpoint {
namespace {

constexpr size_t kChunkBytes = 256 << 10;  // fits the cache of a core
constexpr std::string_view kHowToConvert = "; load it with a current PyTorch and torch.save it again";

// The pickle of the number that legacy files begin with.
constexpr std::string_view kLegacyMagic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
constexpr int64_t kLegacyProtocol = 1001;

// A member's name after the root folder: one of a few fixed names, or data/<up to nine digits>.
bool is_known_member(std::string_view rest) {
  for (std::string_view known :
       {"data.pkl", "version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment"}) {
    if (rest == known) return true;
  }
  if (!rest.starts_with("data/")) return false;
  rest.remove_prefix(5);
  return !rest.empty() && rest.size() <= 9 &&
         std::all_of(rest.begin(), rest.end(), [](char c) { return c >= '0' && c <= '9'; });
}

int64_t columns_of(const PickleTensor& tensor) {
  int64_t columns = 1;
  for (size_t axis = 1; axis < tensor.shape.size(); ++axis) columns *= tensor.shape[axis];
  return columns;
}

int64_t rows_of(const PickleTensor& tensor) { return tensor.shape.empty() ? 1 : tensor.shape[0]; }

// True if the elements of a row are contiguous.
bool has_dense_rows(const PickleTensor& tensor) {
  int64_t expected = 1;
  for (size_t axis = tensor.shape.size(); axis-- > 1;) {
    if (tensor.shape[axis] != 1 && tensor.stride[axis] != expected) return false;
    expected *= tensor.shape[axis];
  }
  return true;
}

std::string first_bytes(const ByteSource& source) {
  std::string text(std::min<uint64_t>(source.size(), 16), '\0');
  source.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

// What a file that is not a zip file seems to be, for the message.
std::string guess_of(const ByteSource& source) {
  const std::string head = first_bytes(source);
  if (head.empty()) return "it is empty";
  if (head.starts_with("\x80\x02")) return "it is a pickle, but not one of torch.save" + std::string(kHowToConvert);
  if (head.starts_with("<")) return "it looks like a web page, perhaps of a download that failed";
  if (head.starts_with("\x1f\x8b")) return "it is compressed by gzip; unpack it first";
  if (head.starts_with("version https://")) return "it is a Git LFS pointer, not the file itself";
  if (head.size() > 8 && head[8] == '{') return "it looks like a safetensors file";
  return "it is not a zip file";
}

}  // namespace

Result<std::unique_ptr<PtFile>> PtFile::open(const std::string& path) {
  Result<std::unique_ptr<InputFile>> file = InputFile::open(path);
  if (!file.ok()) return file.refusal();
  return read(std::move(file).value());
}

Result<std::unique_ptr<PtFile>> PtFile::read(std::unique_ptr<const ByteSource> source) {
  std::unique_ptr<PtFile> file(new PtFile(std::move(source)));  // private constructor
  const std::string head = first_bytes(*file->source_);
  if (head.starts_with(kLegacyMagic)) {
    if (Status status = file->load_legacy(); !status.ok()) return status.refusal();
    return file;
  }
  if (!head.starts_with("PK")) {
    return refuse(ErrorCode::kUnsupportedFormat,
                  file->name() + ": not a supported checkpoint: " + guess_of(*file->source_));
  }
  if (Status status = file->load(); !status.ok()) return status.refusal();
  return file;
}

Status PtFile::load() {
  Result<ZipDirectory> zip = read_zip(*source_);
  if (!zip.ok()) return zip.refusal();
  directory_sha256_ = zip.value().sha256;
  std::string root;
  if (Status status = check_members(zip.value(), root); !status.ok()) return status;
  if (const ZipEntry* order = zip.value().find(root + "/byteorder")) {
    const Result<std::string> text = read_member(*order, 16);
    if (!text.ok()) return text.refusal();
    if (text.value() != "little") {
      return refuse(ErrorCode::kUnsupportedFormat,
                    name() + ": byte order is '" + text.value() + "', expected 'little'");
    }
  }
  const ZipEntry* pickle = zip.value().find(root + "/data.pkl");
  if (pickle == nullptr) {
    return refuse(ErrorCode::kUnsupportedFormat, name() + ": a zip file without data.pkl, so not one of torch.save");
  }
  Result<std::string> bytes = read_member(*pickle, PickleLimits{}.bytes);
  if (!bytes.ok()) return bytes.refusal();
  Result<PickleDocument> document = read_pickle(std::move(bytes).value(), name());
  if (!document.ok()) return document.refusal();
  document_ = std::move(document).value();
  return match_storages(zip.value(), root);
}

Status PtFile::check_members(const ZipDirectory& zip, std::string& root) const {
  for (const ZipEntry& entry : zip.entries) {
    const size_t slash = entry.name.find('/');
    if (slash == std::string::npos || slash == 0 || slash > 255) {
      return refuse(ErrorCode::kUnsupportedFormat, name() + ": a zip file, but not one of torch.save");
    }
    if (root.empty()) root = entry.name.substr(0, slash);
    if (entry.name.compare(0, slash, root) != 0 || !is_known_member(std::string_view(entry.name).substr(slash + 1))) {
      return refuse(ErrorCode::kUnsupportedFormat,
                    name() + ": holds a member that torch.save does not write ('" + entry.name.substr(0, 80) + "')");
    }
  }
  return ok_status();
}

Result<std::string> PtFile::read_member(const ZipEntry& entry, uint64_t max_bytes) const {
  if (entry.bytes > max_bytes) {
    return refuse(ErrorCode::kDataCorrupt, name() + ": member " + entry.name + " has " + std::to_string(entry.bytes) +
                                               " bytes, at most " + std::to_string(max_bytes) + " are read");
  }
  std::string text(entry.bytes, '\0');
  source_->read_at(entry.offset, std::as_writable_bytes(std::span(text)));
  if (crc32(0, std::as_bytes(std::span(text))) != entry.crc32) {
    return refuse(ErrorCode::kDataCorrupt, name() + ": member " + entry.name + " is damaged (CRC-32 differs)");
  }
  return text;
}

// Sizes of storages must match the lengths of their records, and all views together must not claim more bytes than
// twice the size of the file.
Status PtFile::match_storages(const ZipDirectory& zip, const std::string& root) {
  for (const PickleStorage& storage : document_.storages()) {
    const std::string member = root + "/data/" + std::string(storage.key);
    const ZipEntry* entry = zip.find(member);
    if (entry == nullptr) return refuse(ErrorCode::kDataCorrupt, name() + ": storage " + member + " is missing");
    const uint64_t expected = static_cast<uint64_t>(storage.numel) * dtype_bytes(storage.dtype);
    if (entry->bytes != expected) {
      return refuse(ErrorCode::kDataCorrupt, name() + ": storage " + member + " has " + std::to_string(entry->bytes) +
                                                 " bytes, its description says " + std::to_string(expected));
    }
    records_.push_back(*entry);
  }
  is_checked_.resize(records_.size());
  return check_views();
}

Status PtFile::check_views() const {
  uint64_t logical = 0;
  for (const PickleTensor& tensor : document_.tensors()) {
    logical += static_cast<uint64_t>(rows_of(tensor) * columns_of(tensor)) * dtype_bytes(dtype(tensor));
    if (logical > 2 * source_->size()) {
      return refuse(ErrorCode::kDataCorrupt, name() + ": its tensors claim more than twice the bytes of the file");
    }
  }
  return ok_status();
}

// After the magic number: a version, a description of the machine, the value itself, the keys of its storages, and
// their bytes in that order.
Status PtFile::load_legacy() {
  std::string pickles(std::min<uint64_t>(source_->size(), PickleLimits{}.bytes), '\0');
  source_->read_at(0, std::as_writable_bytes(std::span(pickles)));
  uint64_t at = kLegacyMagic.size();
  const auto next = [&]() -> Result<PickleDocument> {
    Result<PickleAndSize> read = read_first_pickle(pickles.substr(at), name());
    if (!read.ok()) return read.refusal();
    at += read.value().bytes;
    return std::move(read.value().document);
  };
  const Result<PickleDocument> version = next();
  if (!version.ok()) return version.refusal();
  const ValueId root = version.value().root();
  if (version.value().kind(root) != ValueKind::kInt || version.value().integer(root) != kLegacyProtocol) {
    return corrupt_file(name(), "its version is not " + std::to_string(kLegacyProtocol));
  }
  const Result<PickleDocument> machine = next();
  if (!machine.ok()) return machine.refusal();
  const auto little = machine.value().find(machine.value().root(), "little_endian");
  if (!little || machine.value().kind(*little) != ValueKind::kBool || machine.value().integer(*little) == 0) {
    return refuse(ErrorCode::kUnsupportedFormat, name() + ": byte order is not 'little'");
  }
  Result<PickleDocument> document = next();
  if (!document.ok()) return document.refusal();
  document_ = std::move(document).value();
  return match_legacy_storages(pickles, at);
}

Status PtFile::match_legacy_storages(std::string_view pickles, uint64_t at) {
  const Result<PickleAndSize> read = read_first_pickle(std::string(pickles.substr(at)), name());
  if (!read.ok()) return read.refusal();
  const PickleDocument& keys = read.value().document;
  if (keys.kind(keys.root()) != ValueKind::kList) return corrupt_file(name(), "holds no list of its storages");
  at += read.value().bytes;
  const auto* file = dynamic_cast<const InputFile*>(source_.get());
  directory_sha256_ = to_hex(sha256(std::string(pickles.substr(0, at)) + std::to_string(source_->size()) + " " +
                                    std::to_string(file != nullptr ? file->modified_ns() : 0)));
  std::map<std::string, size_t, std::less<>> places;
  for (size_t i = 0; i < document_.storages().size(); ++i) places.emplace(document_.storages()[i].key, i);
  records_.resize(places.size());
  for (const ValueId key : keys.items(keys.root())) {
    const auto place = keys.kind(key) == ValueKind::kString ? places.find(keys.text(key)) : places.end();
    if (place == places.end()) return corrupt_file(name(), "lists a storage that no tensor has, or one of them twice");
    const PickleStorage& storage = document_.storages()[place->second];
    std::array<unsigned char, 8> raw{};
    const uint64_t bytes = static_cast<uint64_t>(storage.numel) * dtype_bytes(storage.dtype);
    if (source_->size() - at < raw.size() || source_->size() - at - raw.size() < bytes) {
      return corrupt_file(name(), "is cut: storage " + std::string(storage.key) + " of " + std::to_string(bytes) +
                                      " bytes does not end inside of it");
    }
    source_->read_at(at, std::as_writable_bytes(std::span(raw)));
    uint64_t numel = 0;
    for (size_t i = raw.size(); i > 0; --i) numel = numel << 8 | raw[i - 1];
    if (numel != static_cast<uint64_t>(storage.numel)) {
      return corrupt_file(name(), "storage " + std::string(storage.key) + " has " + std::to_string(numel) +
                                      " elements, its description says " + std::to_string(storage.numel));
    }
    records_[place->second] = ZipEntry{.name = place->first, .offset = at + raw.size(), .bytes = bytes};
    at += raw.size() + bytes;
    places.erase(place);
  }
  if (!places.empty()) return corrupt_file(name(), "storage " + places.begin()->first + " is missing");
  if (at != source_->size()) return corrupt_file(name(), "has bytes after its last storage");
  is_checked_.assign(records_.size(), true);
  return check_views();
}

DType PtFile::dtype(const PickleTensor& tensor) const { return document_.storages()[tensor.storage].dtype; }

Status PtFile::check_storage(const PickleTensor& tensor) {
  if (is_checked_[tensor.storage]) return ok_status();
  const ZipEntry& entry = records_[tensor.storage];
  std::vector<std::byte> chunk(std::min<uint64_t>(entry.bytes, kChunkBytes));
  uint32_t crc = 0;
  for (uint64_t done = 0; done < entry.bytes;) {
    const std::span<std::byte> part(chunk.data(), std::min<uint64_t>(chunk.size(), entry.bytes - done));
    source_->read_at(entry.offset + done, part);
    crc = crc32(crc, part);
    done += part.size();
  }
  if (crc != entry.crc32) {
    return refuse(ErrorCode::kDataCorrupt, name() + ": member " + entry.name + " is damaged (CRC-32 differs)");
  }
  is_checked_[tensor.storage] = true;
  return ok_status();
}

bool PtFile::readable(const PickleTensor& tensor) {
  const bool is_transposed = tensor.shape.size() == 2 && tensor.stride[0] == 1;
  return has_dense_rows(tensor) || is_transposed;
}

void PtFile::read_rows(const PickleTensor& tensor, int64_t row, int64_t rows, std::span<std::byte> out) const {
  const auto element = static_cast<int64_t>(dtype_bytes(dtype(tensor)));
  const int64_t columns = columns_of(tensor);
  check(readable(tensor) && row >= 0 && rows >= 0 && row + rows <= rows_of(tensor), "PtFile::read_rows: range");
  check_eq(out.size(), static_cast<size_t>(rows * columns * element), "PtFile::read_rows: bytes");
  if (out.empty()) return;
  const uint64_t base = records_[tensor.storage].offset + static_cast<uint64_t>(tensor.offset * element);
  const int64_t row_stride = tensor.shape.empty() ? 1 : tensor.stride[0];
  if (has_dense_rows(tensor)) {
    const auto row_bytes = static_cast<size_t>(columns * element);
    const bool is_dense = row_stride == columns || rows == 1;
    const int64_t reads = is_dense ? 1 : rows;
    const size_t bytes = is_dense ? out.size() : row_bytes;
    for (int64_t i = 0; i < reads; ++i) {
      source_->read_at(base + static_cast<uint64_t>((row + i) * row_stride * element),
                       out.subspan(static_cast<size_t>(i) * bytes, bytes));
    }
    return;
  }
  std::vector<std::byte> column(static_cast<size_t>(rows * element));  // transposed: the rows of a column are adjacent
  for (int64_t c = 0; c < columns; ++c) {
    source_->read_at(base + static_cast<uint64_t>((row + c * tensor.stride[1]) * element), column);
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(out.data() + (r * columns + c) * element, column.data() + r * element, static_cast<size_t>(element));
    }
  }
}

}  // namespace optserve::checkpoint
