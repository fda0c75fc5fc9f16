// Writes a file of torch.save in one pass and in bounded memory: the zip layout of PyTorch's own writer, which both
// PtFile and torch.load read. The same calls give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "checkpoint/staging/staging_folder.h"

namespace optserve::checkpoint {

class PtWriter {
 public:
  // `pickle` describes storages 0, 1, ... (pickle_writer.h). Sizes and offsets from `wide_from` on are written to zip64
  // fields; from the default value on they must be. Throws Error when the environment fails, as every call does.
  PtWriter(OutputFile file, std::string_view pickle, uint64_t wide_from = UINT32_MAX);

  // Begins the next storage; the one before must be complete.
  void begin_storage(uint64_t bytes);
  // The next bytes of the storage.
  void append(std::span<const std::byte> bytes);
  FileEntry finish();

 private:
  void begin_member(const std::string& name, uint64_t bytes);
  void end_member();
  void add_member(const std::string& name, std::string_view content);
  void put(std::string_view text);
  bool is_wide(uint64_t number) const { return number >= wide_from_; }

  struct Member {
    std::string name;
    uint64_t offset = 0;  // of the local header
    uint64_t bytes = 0;
    uint32_t crc = 0;
  };

  OutputFile file_;
  uint64_t wide_from_;
  Member member_;      // being written
  uint64_t left_ = 0;  // bytes of it that have not come yet
  bool is_open_ = false;
  uint64_t storages_ = 0;
  uint64_t members_ = 0;
  std::string directory_;
};

}  // namespace optserve::checkpoint
