// A disk for tests that loses data and fails: SQLite's own VFS for real files, which remembers what is synced of each
// file. image() is what a loss of power could leave: any version that a sector has had since the last sync, and any
// length of a file that has grown or shrunk since. Writes, syncs and opens can be made to fail. While an object exists,
// it is SQLite's default VFS. There may be only one at a time.
#pragma once

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"

namespace optserve::journal::testing {

enum class IoKind { kOpen, kWrite, kSync, kTruncate };

class CrashVfs {
 public:
  static constexpr int64_t kSectorBytes = 512;
  using Image = std::map<std::string, std::string>;  // contents by path

  CrashVfs() : real_(sqlite3_vfs_find(nullptr)) {
    check(current() == nullptr, "one at a time");
    current() = this;
    vfs_ = *real_;
    vfs_.zName = "crash";
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.xOpen = open;
    vfs_.xDelete = remove;
    methods_.iVersion = 1;  // no shared memory, which the journal does not need
    methods_.xClose = [](sqlite3_file* file) { return close(of(file)); };
    methods_.xRead = [](sqlite3_file* file, void* to, int size, sqlite3_int64 at) {
      sqlite3_file* real = of(file).real();
      return real->pMethods->xRead(real, to, size, at);
    };
    methods_.xWrite = write;
    methods_.xTruncate = truncate;
    methods_.xSync = sync;
    methods_.xFileSize = [](sqlite3_file* file, sqlite3_int64* size) {
      sqlite3_file* real = of(file).real();
      return real->pMethods->xFileSize(real, size);
    };
    methods_.xLock = [](sqlite3_file* file, int level) {
      sqlite3_file* real = of(file).real();
      return real->pMethods->xLock(real, level);
    };
    methods_.xUnlock = [](sqlite3_file* file, int level) {
      sqlite3_file* real = of(file).real();
      return real->pMethods->xUnlock(real, level);
    };
    methods_.xCheckReservedLock = [](sqlite3_file* file, int* out) {
      sqlite3_file* real = of(file).real();
      return real->pMethods->xCheckReservedLock(real, out);
    };
    methods_.xFileControl = [](sqlite3_file* file, int what, void* with) {
      sqlite3_file* real = of(file).real();
      return real->pMethods->xFileControl(real, what, with);
    };
    methods_.xSectorSize = [](sqlite3_file* file) {
      sqlite3_file* real = of(file).real();
      return real->pMethods->xSectorSize(real);
    };
    methods_.xDeviceCharacteristics = [](sqlite3_file* file) {
      sqlite3_file* real = of(file).real();
      return real->pMethods->xDeviceCharacteristics(real);
    };
    sqlite3_vfs_register(&vfs_, 1);
  }
  ~CrashVfs() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_vfs_register(real_, 1);
    current() = nullptr;
  }
  CrashVfs(const CrashVfs&) = delete;
  CrashVfs& operator=(const CrashVfs&) = delete;

  // Called before each operation. If it returns something other than SQLITE_OK, the operation fails with that and does
  // nothing. A write that fails with SQLITE_FULL has written its first sector.
  std::function<int(IoKind, const std::string& path)> before;

  // What a loss of power at this moment could leave.
  Image image(std::mt19937_64& random) const {
    Image image;
    for (const auto& [path, disk] : disks_) {
      if (!disk.exists && disk.is_name_synced) continue;
      if (!disk.is_name_synced && random() % 2 == 0) continue;
      std::string bytes = disk.synced;
      // Sometimes nothing of it reached the disk, sometimes everything, mostly a part.
      const uint64_t mood = random() % 8;
      for (const auto& [sector, versions] : disk.unsynced) {
        const size_t choice = mood == 0 ? 0 : mood == 1 ? versions.size() : random() % (versions.size() + 1);
        if (choice == 0) continue;
        const std::string& version = versions[choice - 1];
        const auto at = static_cast<size_t>(sector * kSectorBytes);
        if (bytes.size() < at + version.size()) bytes.resize(at + version.size());
        bytes.replace(at, version.size(), version);
      }
      if (mood != 1 && !disk.lengths.empty() && random() % 2 == 0) {
        bytes.resize(static_cast<size_t>(disk.lengths[random() % disk.lengths.size()]));
      }
      image[path] = std::move(bytes);
    }
    return image;
  }

 private:
  // The state of one file on the disk.
  struct Disk {
    bool exists = true;
    bool is_name_synced = true;                            // that it exists, or that it does not
    std::string synced;                                    // content that is sure to be there
    std::map<int64_t, std::vector<std::string>> unsynced;  // versions of each sector since
    std::vector<int64_t> lengths;                          // lengths that it has had since, if it was truncated
    std::string now;                                       // content that programs see
  };
  struct File {
    sqlite3_file base;
    const char* path;  // null for a temporary file, which does not matter after a crash
    sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  };

  static CrashVfs*& current() {
    static CrashVfs* vfs = nullptr;
    return vfs;
  }
  static File& of(sqlite3_file* file) { return *reinterpret_cast<File*>(file); }
  int ask(IoKind kind, const char* path) const { return before && path != nullptr ? before(kind, path) : SQLITE_OK; }

  static int open(sqlite3_vfs*, const char* path, sqlite3_file* out, int flags, int* flags_out) {
    CrashVfs& self = *current();
    File& file = of(out);
    file.base.pMethods = nullptr;
    file.path = path;
    if (const int code = self.ask(IoKind::kOpen, path); code != SQLITE_OK) return code;
    const int code = self.real_->xOpen(self.real_, path, file.real(), flags, flags_out);
    if (code != SQLITE_OK) return code;
    file.base.pMethods = &self.methods_;
    if (path == nullptr) return SQLITE_OK;
    const auto [found, is_unknown] = self.disks_.try_emplace(path);
    Disk& disk = found->second;
    if (!is_unknown && disk.exists) return SQLITE_OK;
    // What was there before it was opened is all on the disk.
    sqlite3_int64 size = 0;
    file.real()->pMethods->xFileSize(file.real(), &size);
    std::string bytes(static_cast<size_t>(size), '\0');
    if (size > 0) file.real()->pMethods->xRead(file.real(), bytes.data(), static_cast<int>(size), 0);
    disk = Disk{};
    // SQLite syncs the folder with the first sync of a log; for the database's name, the journal must do it.
    disk.is_name_synced = size > 0 || (flags & SQLITE_OPEN_MAIN_DB) != 0;
    disk.synced = bytes;
    disk.now = std::move(bytes);
    return SQLITE_OK;
  }
  static int close(File& file) {
    const int code = file.real()->pMethods->xClose(file.real());
    file.base.pMethods = nullptr;
    return code;
  }
  static int remove(sqlite3_vfs*, const char* path, int sync_folder) {
    CrashVfs& self = *current();
    const int code = self.real_->xDelete(self.real_, path, sync_folder);
    if (const auto found = self.disks_.find(path); found != self.disks_.end() && code == SQLITE_OK) {
      found->second.exists = false;
      found->second.is_name_synced = false;
      if (sync_folder != 0) self.sync_names();
    }
    return code;
  }
  static int write(sqlite3_file* out, const void* bytes, int size, sqlite3_int64 at) {
    File& file = of(out);
    const int failure = current()->ask(IoKind::kWrite, file.path);
    if (failure != SQLITE_OK && failure != SQLITE_FULL) return failure;
    if (failure == SQLITE_FULL) size = std::min<int>(size, kSectorBytes);
    const int code = file.real()->pMethods->xWrite(file.real(), bytes, size, at);
    if (code == SQLITE_OK && file.path != nullptr) {
      Disk& disk = current()->disks_.at(file.path);
      const auto end = static_cast<size_t>(at + size);
      if (disk.now.size() < end) disk.now.resize(end);
      disk.now.replace(static_cast<size_t>(at), static_cast<size_t>(size), static_cast<const char*>(bytes),
                       static_cast<size_t>(size));
      for (int64_t sector = at / kSectorBytes; sector * kSectorBytes < at + size; ++sector) {
        disk.unsynced[sector].push_back(disk.now.substr(static_cast<size_t>(sector * kSectorBytes), kSectorBytes));
      }
    }
    return failure == SQLITE_FULL ? failure : code;
  }
  static int truncate(sqlite3_file* out, sqlite3_int64 size) {
    File& file = of(out);
    if (const int code = current()->ask(IoKind::kTruncate, file.path); code != SQLITE_OK) return code;
    const int code = file.real()->pMethods->xTruncate(file.real(), size);
    if (code == SQLITE_OK && file.path != nullptr) {
      Disk& disk = current()->disks_.at(file.path);
      disk.lengths.push_back(size);
      disk.now.resize(static_cast<size_t>(size));
    }
    return code;
  }
  static int sync(sqlite3_file* out, int flags) {
    File& file = of(out);
    if (const int code = current()->ask(IoKind::kSync, file.path); code != SQLITE_OK) return code;
    const int code = file.real()->pMethods->xSync(file.real(), flags);
    if (code == SQLITE_OK && file.path != nullptr) {
      Disk& disk = current()->disks_.at(file.path);
      disk.synced = disk.now;
      disk.unsynced.clear();
      disk.lengths.clear();
      if (!disk.is_name_synced) current()->sync_names();
    }
    return code;
  }
  void sync_names() {
    for (auto& [path, disk] : disks_) disk.is_name_synced = true;
  }

  sqlite3_vfs* real_;
  sqlite3_vfs vfs_{};
  sqlite3_io_methods methods_{};
  std::map<std::string, Disk> disks_;
};

}  // namespace optserve::journal::testing
