// Random access to bytes that are never trusted: a file, or memory in tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"

namespace optserve::checkpoint {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t size() const = 0;
  virtual const std::string& name() const = 0;  // for messages: the path
  // Fills `out` from `offset`. Throws Error if the bytes cannot be read, for example because the file has become
  // shorter.
  virtual void read_at(uint64_t offset, std::span<std::byte> out) const = 0;
  // True if the bytes may differ from when the source was opened.
  virtual bool has_changed() const { return false; }
};

// An open regular file. Reads use pread, so threads may share one object.
class InputFile final : public ByteSource {
 public:
  // Refuses what is not a readable regular file (a folder, a FIFO, a device).
  static Result<std::unique_ptr<InputFile>> open(const std::string& path);
  ~InputFile() override;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  uint64_t size() const override { return size_; }
  const std::string& name() const override { return path_; }
  void read_at(uint64_t offset, std::span<std::byte> out) const override;
  // Compares size and modification time.
  bool has_changed() const override;
  int64_t modified_ns() const { return mtime_ns_; }  // when it was opened

 private:
  InputFile(std::string path, int fd, uint64_t size, int64_t mtime_ns)
      : path_(std::move(path)), fd_(fd), size_(size), mtime_ns_(mtime_ns) {}

  void read_piece(uint64_t offset, std::span<std::byte> out) const;

  std::string path_;
  int fd_;
  uint64_t size_;
  int64_t mtime_ns_;
};

// Bytes in memory, which must outlive the object.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes, std::string name = "memory")
      : bytes_(bytes), name_(std::move(name)) {}
  uint64_t size() const override { return bytes_.size(); }
  const std::string& name() const override { return name_; }
  void read_at(uint64_t offset, std::span<std::byte> out) const override;

 private:
  std::span<const std::byte> bytes_;
  std::string name_;
};

// The refusal of a file whose content is not what it must be: "PATH: what is wrong".
Refusal corrupt_file(const std::string& path, const std::string& what);

// The text of a whole small file; refuses more than `max_bytes`.
Result<std::string> read_text_file(const std::string& path, uint64_t max_bytes);

}  // namespace optserve::checkpoint
