// A file of torch.save: a zip file with a pickle and one member of raw bytes per storage, or, before PyTorch 1.6, a few
// pickles and the raw bytes of each storage after its length. Opening a file reads only the pickle; tensors are read in
// ranges of rows, so that memory does not grow with the file.
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
  // Refuses what torch.save does not write, whatever would run code, and numbers that contradict each other.
  static Result<std::unique_ptr<PtFile>> open(const std::string& path);
  // The same over any bytes; `source` is kept.
  static Result<std::unique_ptr<PtFile>> read(std::unique_ptr<const ByteSource> source);

  const std::string& name() const { return source_->name(); }
  const ByteSource& source() const { return *source_; }
  const PickleDocument& document() const { return document_; }
  // The SHA-256 of the zip directory, which holds the CRC-32 of every member, so that it changes with any byte of the
  // file's data. Legacy files have no checksums: for these it is the SHA-256 of the pickles and the time of the last
  // change.
  const std::string& directory_sha256() const { return directory_sha256_; }

  DType dtype(const PickleTensor& tensor) const;

  // Compares the storage that holds `tensor` with its recorded CRC-32, if there is one. Each storage is read only once.
  Status check_storage(const PickleTensor& tensor);

  // Reads rows [row, row + rows) of a tensor as a matrix, whose columns are the product of all axes but the first.
  // `out` has rows * columns elements. Throws Error when the file cannot be read. The tensor's layout must be
  // readable().
  void read_rows(const PickleTensor& tensor, int64_t row, int64_t rows, std::span<std::byte> out) const;
  // True for contiguous tensors, tensors with a larger stride between rows, and transposed matrices.
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
  std::vector<bool> is_checked_;   // storage i has matched its CRC
};

}  // namespace optserve::checkpoint
