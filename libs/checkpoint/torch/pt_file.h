// A file of torch.save: a zip file with a pickle and one member of raw bytes per storage, or, before PyTorch 1.6, a few
// pickles and the raw bytes of each storage after its length. Opening reads the pickle only; tensors are read in ranges
// of rows, so memory does not grow with the file.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/io/byte_source.h"
#include "checkpoint/torch/pickle.h"
#include "checkpoint/torch/zip.h"

namespace optserve::checkpoint {

class PtFile {
 public:
  // Refuses what torch.save does not write, whatever would run code, and any number that does not fit another.
  static Result<std::unique_ptr<PtFile>> open(const std::string& path);
  // The same over any bytes; `source` is kept.
  static Result<std::unique_ptr<PtFile>> read(std::unique_ptr<const ByteSource> source);

  const std::string& name() const { return source_->name(); }
  const ByteSource& source() const { return *source_; }
  const PickleDocument& document() const { return document_; }
  // SHA-256 of the zip directory, which holds the CRC-32 of every member: changes when any byte of the file's data
  // does. Legacy files have no checksums: there it is of the pickles and the time of the last change.
  const std::string& directory_sha256() const { return directory_sha256_; }

  DType dtype(const PickleTensor& tensor) const;

  // Compares the storage that holds `tensor` with its recorded CRC-32, if there is one; each storage is read once only.
  Status check_storage(const PickleTensor& tensor);

  // Reads rows [row, row + rows) of a tensor seen as a matrix: axis 0 by the product of the other axes. `out` has
  // rows * columns elements. Throws Error when the file cannot be read. The tensor's layout must be readable().
  void read_rows(const PickleTensor& tensor, int64_t row, int64_t rows, std::span<std::byte> out) const;
  // True for contiguous tensors, for rows with a larger stride, and for transposed matrices.
  static bool readable(const PickleTensor& tensor);

 private:
  explicit PtFile(std::unique_ptr<const ByteSource> source) : source_(std::move(source)) {}
  Status load();
  Status load_legacy();
  Status match_legacy_storages(std::string_view pickles, uint64_t at);
  Status check_views() const;
  Status check_members(const ZipDirectory& zip, std::string& root) const;
  Status match_storages(const ZipDirectory& zip, const std::string& root);
  Result<std::string> read_member(const ZipEntry& entry, uint64_t max_bytes) const;

  std::unique_ptr<const ByteSource> source_;
  PickleDocument document_;
  std::string directory_sha256_;
  std::vector<ZipEntry> records_;  // of storage i of the document
  std::vector<bool> is_checked_;   // storage i agreed with its CRC
};

}  // namespace optserve::checkpoint
