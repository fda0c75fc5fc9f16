// Files that clients upload and batches write, in a folder that all gateways share. Each is a file of content and one
// of facts beside it; a file exists when its facts do. Functions throw Error when the folder fails.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::gateway {

struct StoredFile {
  std::string id;  // "file-" and 32 hexadecimal digits
  std::string filename;
  std::string purpose;  // "batch" or "batch_output"
  std::string tenant;
  uint64_t bytes = 0;
  int64_t created_at = 0;  // seconds since 1970, as all times here
  int64_t expires_at = 0;  // 0: never
};

class FileStore {
 public:
  // Creates the folder. `bytes_max`: of all files together.
  FileStore(std::string folder, uint64_t bytes_max);

  static bool is_id(std::string_view text);
  static std::string new_id();

  // A name in the folder for content that is being written. What a killed process leaves there is removed after a day.
  std::string new_partial() const;
  // Makes a written file a stored one: its content is on the disk when this returns.
  // `facts.bytes` is found out here.
  void adopt(const std::string& partial, StoredFile facts);
  // Refuses so many more bytes if the store is full.
  Status check_room(uint64_t bytes) const;
  // Facts of a file that exists and has not expired.
  std::optional<StoredFile> find(std::string_view id, int64_t now) const;
  std::string content_path(std::string_view id) const;
  // Newest first.
  std::vector<StoredFile> list(int64_t now) const;
  bool remove(std::string_view id);
  // Removes what has expired and what was left over, but for the files `in_use`.
  void sweep(int64_t now, const std::set<std::string, std::less<>>& in_use);
  const std::string& folder() const { return folder_; }

 private:
  std::string facts_path(std::string_view id) const;

  std::string folder_;
  uint64_t bytes_max_;
};

// {"id", "object": "file", "bytes", "created_at", "filename", "purpose", "status", "expires_at"}
std::string file_body(const StoredFile& file);

// Writes a small file so that it is there as a whole or not at all; `is_durable`: also after a loss of power.
void replace_file(const std::string& path, std::string_view text, bool is_durable);
// The text of a small file; nullopt: there is none.
std::optional<std::string> read_small_file(const std::string& path);

}  // namespace optserve::gateway
