// The folder of a replica, as the few operations that are needed of it. Tests have one that loses power. Every function
// throws Error if it fails.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::journal {

// A sync failed. What was written since the last one may be lost although it can still be read.
class SyncError : public Error {
 public:
  using Error::Error;
};

class ReplicaFile {
 public:
  virtual ~ReplicaFile() = default;
  virtual int64_t bytes() = 0;
  virtual std::string read_at(size_t size, int64_t at) = 0;  // less at the end of the file
  virtual void write_at(std::string_view bytes, int64_t at) = 0;
  virtual void truncate(int64_t bytes) = 0;
  virtual void sync() = 0;  // throws SyncError
};

class ReplicaDisk {
 public:
  virtual ~ReplicaDisk() = default;
  virtual std::vector<std::string> names() = 0;
  // If `create`, the file is made, or emptied if it exists.
  virtual std::unique_ptr<ReplicaFile> open(const std::string& name, bool create) = 0;
  virtual void rename(const std::string& from, const std::string& to) = 0;
  virtual void remove(const std::string& name) = 0;  // fine if there is none
  virtual void sync_names() = 0;                     // throws SyncError
  // Throws if the folder or one of its files is not what was opened: a mount was lost, or somebody removed the file.
  virtual void check_place(ReplicaFile& file, const std::string& name) = 0;
};

enum class ReplicaUse { kRead, kWrite };
// Takes a lock, so that two schedulers cannot write to one folder and nobody reads what is being written; kRead goes
// without it if there is none that it can write to. Throws ConfigurationError if there is no such folder, and Error if
// another process holds the lock.
std::unique_ptr<ReplicaDisk> open_replica_disk(const std::string& folder, ReplicaUse use);
// An existing file, to be read and written.
std::unique_ptr<ReplicaFile> open_replica_file(const std::string& path);

}  // namespace optserve::journal
