// For tests: the folder of a replica on a disk that loses power and fails. image() is what could be left: any version
// that a sector has had since its file was synced, any length since then, and any file that a name has had since names
// were synced.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "journal/replica/replica_disk.h"

namespace optserve::journal::testing {

enum class DiskAction { kWrite, kSync, kName, kSyncNames };

class LossyReplicaDisk final : public ReplicaDisk {
 public:
  static constexpr size_t kSectorBytes = 512;
  using Image = std::map<std::string, std::string>;  // contents by name

  explicit LossyReplicaDisk(const Image& found = {}) {
    for (const auto& [name, bytes] : found) {
      const auto content = std::make_shared<Content>();
      content->now = content->synced = bytes;
      names_[name] = synced_names_[name] = content;
    }
  }

  // Called before each action. If it returns true, the action fails: a write after its first sector, a sync after
  // nothing.
  std::function<bool(DiskAction)> before;
  bool ignores_syncs = false;  // says that it has synced, and has not

  Image image(std::mt19937_64& random) const {
    Image image;
    const uint64_t mood = random() % 8;  // sometimes everything has reached the disk, sometimes nothing that had not to
    const auto pick = [&](size_t versions) -> size_t {  // 0: as synced
      return mood == 0 ? 0 : mood == 1 ? versions : random() % (versions + 1);
    };
    std::map<std::string, std::shared_ptr<Content>> names = synced_names_;
    for (const auto& [name, versions] : unsynced_names_) {
      if (const size_t choice = pick(versions.size()); choice > 0) names[name] = versions[choice - 1];
    }
    for (const auto& [name, content] : names) {
      if (content == nullptr) continue;
      std::string bytes = content->synced;
      for (const auto& [sector, versions] : content->unsynced) {
        const size_t choice = pick(versions.size());
        if (choice == 0) continue;
        const std::string& version = versions[choice - 1];
        if (bytes.size() < sector * kSectorBytes + version.size()) bytes.resize(sector * kSectorBytes + version.size());
        bytes.replace(sector * kSectorBytes, version.size(), version);
      }
      if (const size_t choice = pick(content->lengths.size()); choice > 0) bytes.resize(content->lengths[choice - 1]);
      image[name] = std::move(bytes);
    }
    return image;
  }

  std::vector<std::string> names() override {
    std::vector<std::string> found;
    for (const auto& [name, content] : names_) found.push_back(name);
    return found;
  }
  std::unique_ptr<ReplicaFile> open(const std::string& name, bool create) override {
    if (!names_.contains(name)) {
      if (!create) throw Error("open " + name + ": no such file");
      act(DiskAction::kName);
      set_name(name, std::make_shared<Content>());
    }
    auto file = std::make_unique<File>(*this, names_.at(name));
    if (create) file->truncate(0);
    return file;
  }
  void rename(const std::string& from, const std::string& to) override {
    act(DiskAction::kName);
    set_name(to, names_.at(from));
    set_name(from, nullptr);
  }
  void remove(const std::string& name) override {
    act(DiskAction::kName);
    if (names_.contains(name)) set_name(name, nullptr);
  }
  void sync_names() override {
    act(DiskAction::kSyncNames);
    synced_names_ = names_;
    unsynced_names_.clear();
  }
  void check_place(ReplicaFile&, const std::string& name) override {
    if (!names_.contains(name)) throw Error(name + " is gone");
  }

 private:
  struct Content {
    std::string now, synced;
    std::map<size_t, std::vector<std::string>> unsynced;  // versions of each sector since the last sync
    std::vector<size_t> lengths;                          // after truncations since then, each beside that of the end
  };
  class File final : public ReplicaFile {
   public:
    File(LossyReplicaDisk& disk, std::shared_ptr<Content> content) : disk_(disk), content_(std::move(content)) {}
    int64_t bytes() override { return static_cast<int64_t>(content_->now.size()); }
    std::string read_at(size_t size, int64_t at) override {
      const auto from = static_cast<size_t>(at);
      return from >= content_->now.size() ? "" : content_->now.substr(from, size);
    }
    void write_at(std::string_view bytes, int64_t at) override {
      try {
        disk_.act(DiskAction::kWrite);
      } catch (const Error&) {
        put(bytes.substr(0, kSectorBytes), static_cast<size_t>(at));
        throw;
      }
      put(bytes, static_cast<size_t>(at));
    }
    void truncate(int64_t bytes) override {
      disk_.act(DiskAction::kWrite);
      const auto size = static_cast<size_t>(bytes);
      if (size == content_->now.size()) return;
      content_->lengths.push_back(size);
      content_->now.resize(size);
    }
    void sync() override {
      if (disk_.fails(DiskAction::kSync)) throw SyncError("sync: the disk failed");
      if (disk_.ignores_syncs) return;
      content_->synced = content_->now;
      content_->unsynced.clear();
      content_->lengths.clear();
    }

   private:
    void put(std::string_view bytes, size_t at) {
      std::string& now = content_->now;
      if (now.size() < at + bytes.size()) now.resize(at + bytes.size());
      now.replace(at, bytes.size(), bytes);
      for (size_t sector = at / kSectorBytes; sector * kSectorBytes < at + bytes.size(); ++sector) {
        content_->unsynced[sector].push_back(now.substr(sector * kSectorBytes, kSectorBytes));
      }
    }
    LossyReplicaDisk& disk_;
    const std::shared_ptr<Content> content_;
  };

  bool fails(DiskAction action) const { return before && before(action); }
  void act(DiskAction action) const {
    if (!fails(action)) return;
    if (action == DiskAction::kSyncNames) throw SyncError("sync names: the disk failed");
    throw Error("the disk failed");
  }
  void set_name(const std::string& name, std::shared_ptr<Content> content) {
    unsynced_names_[name].push_back(content);
    if (content != nullptr) {
      names_[name] = std::move(content);
    } else {
      names_.erase(name);
    }
  }

  std::map<std::string, std::shared_ptr<Content>> names_, synced_names_;
  std::map<std::string, std::vector<std::shared_ptr<Content>>> unsynced_names_;  // null: removed
};

}  // namespace optserve::journal::testing
