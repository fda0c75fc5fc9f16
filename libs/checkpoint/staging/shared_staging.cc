#include "checkpoint/staging/shared_staging.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string_view>

#include "base/check.h"
#include "base/ids.h"
#include "checkpoint/io/byte_source.h"

namespace optserve::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRecordName = "conversion.json";
constexpr const char* kMembers = "members";
constexpr const char* kTurn = "turn";
constexpr const char* kCheckpoint = "checkpoint";
constexpr const char* kPart = ".part-";

std::string numbered(const char* format, int shard) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), format, shard);
  return text.data();
}

std::string claim_name(int shard) { return numbered("claim-%03d", shard); }
std::string shard_name(int shard) { return numbered("shard-%03d", shard); }

void close_fd(int& fd) {
  if (fd >= 0) ::close(std::exchange(fd, -1));
}

void flush_folder(int fd, const std::string& path) {
  if (fsync(fd) != 0) throw errno_error("fsync " + path);
}

}  // namespace

SharedStaging::SharedStaging(TargetFolder target, int shards)
    : target_(std::move(target)),
      shards_(shards),
      name_("." + target_.name() + ".staging"),
      path_((fs::path(target_.parent()) / name_).string()) {}

Result<std::unique_ptr<SharedStaging>> SharedStaging::join(const StagingOptions& options) {
  for (bool restart = options.restart;; restart = false) {
    Result<TargetFolder> target = TargetFolder::open(options.target);
    if (!target.ok()) return target.refusal();
    if (Status status = target.value().check_absent(); !status.ok()) {
      // The process that published it may have died before it removed the staging folder.
      SharedStaging left(std::move(target).value(), options.shards);
      if (fs::exists(left.path_) && left.enter()) left.discard();
      return status.refusal();
    }
    std::unique_ptr<SharedStaging> staging(
        new SharedStaging(std::move(target).value(), options.shards));  // private constructor
    while (!staging->enter()) {
    }
    const Result<bool> settled = staging->settle({options.target, options.record, options.shards, restart});
    if (!settled.ok()) return settled.refusal();
    if (settled.value()) return staging;
  }
}

// If the folder still has its name once the shared lock is held, nobody can remove it any more.
bool SharedStaging::enter() {
  leave();
  const bool is_new = mkdirat(target_.parent_fd(), name_.c_str(), 0755) == 0;
  if (!is_new && errno != EEXIST) throw errno_error("create a folder in " + target_.parent());
  fd_ = openat(target_.parent_fd(), name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd_ < 0 && errno == ENOENT) return false;
  if (fd_ < 0) throw errno_error("open " + path_);
  struct stat opened {
  }, named{};
  if (fstat(fd_, &opened) != 0) throw errno_error("stat " + path_);
  // The content is trusted, so it must not come from another user who can write here.
  if (!is_new && opened.st_uid != geteuid()) {
    throw Error(path_ + " belongs to user " + std::to_string(opened.st_uid) + ", expected " +
                std::to_string(geteuid()) + "; remove it or convert as that user");
  }
  members_ = FileLock::wait(fd_, path_, kMembers, FileLock::Kind::kShared);
  const bool is_inside = members_ && fstatat(target_.parent_fd(), name_.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
                         named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
  if (!is_inside) leave();
  return is_inside;
}

Result<bool> SharedStaging::settle(const StagingOptions& options) {
  const auto turn = FileLock::wait(fd_, path_, kTurn, FileLock::Kind::kExclusive);
  if (Status status = target_.check_absent(); !status.ok()) return status.refusal();
  checkpoint_fd_ = openat(fd_, kCheckpoint, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  const std::optional<std::string> found = read(kRecordName);
  const std::string difference = found ? record_difference(*found, options.record) : "";
  if (found && (options.restart || !difference.empty())) {
    is_kept_ = true;
    const int kept = finished();
    if (!difference.empty() && !options.restart && kept > 0) {
      return refuse(ErrorCode::kBadRequest, path_ + " holds " + std::to_string(kept) +
                                                " finished shards of another conversion, which differs in " +
                                                difference + "; --restart removes them");
    }
    if (!members_->try_upgrade()) {
      return refuse(ErrorCode::kBadRequest, path_ + ": another process converts there" +
                                                (difference.empty() ? "" : " what differs in " + difference) +
                                                "; it must end first");
    }
    if (!try_to_remove()) throw Error(path_ + ": cannot be removed");
    return false;
  }
  if (!found) write(kRecordName, options.record, fd_);
  if (checkpoint_fd_ < 0) {
    if (mkdirat(fd_, kCheckpoint, 0755) != 0) throw errno_error("create " + path_ + "/" + kCheckpoint);
    checkpoint_fd_ = openat(fd_, kCheckpoint, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (checkpoint_fd_ < 0) throw errno_error("open " + path_ + "/" + kCheckpoint);
  }
  flush_folder(target_.parent_fd(), target_.parent());
  return true;
}

// Needs the exclusive lock on the members' file, which is removed last: whoever waits for it finds the folder gone or
// empty.
bool SharedStaging::try_to_remove() {
  std::error_code ignored;  // also called by a destructor; what is left of the hidden folder is found again
  for (const fs::directory_entry& entry : fs::directory_iterator(path_, ignored)) {
    if (entry.path().filename() != kMembers) fs::remove_all(entry.path(), ignored);
  }
  unlinkat(fd_, kMembers, 0);
  const bool removed = unlinkat(target_.parent_fd(), name_.c_str(), AT_REMOVEDIR) == 0;
  is_kept_ = true;
  return removed || errno == ENOTEMPTY || errno == ENOENT;  // ENOTEMPTY: another process has started anew in it
}

void SharedStaging::leave() {
  close_fd(fd_);
  close_fd(checkpoint_fd_);
  members_.reset();
}

SharedStaging::~SharedStaging() {
  queues_.stop();
  try {
    const bool may_go = members_ && !is_kept_ && (is_useless_ || finished() == 0);
    if (may_go && members_->try_upgrade() && (is_useless_ || finished() == 0)) try_to_remove();
  } catch (const std::exception&) {  // there is no caller to tell, and the next conversion finds the folder
  }
  leave();
}

std::vector<ShardClaim> SharedStaging::claim(int shards_max) {
  const auto turn = FileLock::wait(fd_, path_, kTurn, FileLock::Kind::kExclusive);
  std::vector<ShardClaim> claims;
  if (is_published()) return claims;
  for (int shard = 0; shard < shards_ && static_cast<int>(claims.size()) < shards_max; ++shard) {
    std::optional<FileLock> lock = FileLock::try_exclusive(fd_, path_, claim_name(shard));
    if (!lock || record_of(shard)) continue;  // in this order: a writer records before it unlocks
    remove_parts(shard);
    claims.push_back(ShardClaim(shard, std::move(*lock)));
  }
  return claims;
}

// Removes what processes that have ended left of this shard.
void SharedStaging::remove_parts(int shard) {
  const std::string prefix = shard_name(shard) + kPart;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_)) {
    if (const std::string name = entry.path().filename().string(); name.starts_with(prefix)) {
      unlinkat(fd_, name.c_str(), 0);
    }
  }
}

OutputFile SharedStaging::new_part(const ShardClaim& claim) {
  const std::string name = shard_name(claim.shard()) + kPart + Id128::random().hex();
  own_parts_.insert(name);
  return OutputFile(fd_, path_, name, queues_.next());
}

void SharedStaging::finish(const ShardClaim& claim, OutputFile& part, const ShardNotes& notes) {
  const FileEntry entry = part.finish();
  const std::string name = shard_file_name(claim.shard(), shards_);
  if (renameat(fd_, entry.name.c_str(), checkpoint_fd_, name.c_str()) != 0) {
    throw errno_error("rename " + path_ + "/" + entry.name + " to " + name);
  }
  own_parts_.erase(entry.name);
  flush_folder(checkpoint_fd_, path_ + "/" + kCheckpoint);
  write(shard_name(claim.shard()) + ".json", shard_record_text({entry.bytes, entry.sha256, notes}), fd_);
}

void SharedStaging::drop(const OutputFile& part) {
  if (own_parts_.erase(part.name()) > 0) unlinkat(fd_, part.name().c_str(), 0);
}

std::optional<std::string> SharedStaging::read(const std::string& name) const {
  struct stat info {};
  if (fstatat(fd_, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  const Result<std::unique_ptr<InputFile>> file = InputFile::open(path_ + "/" + name);
  if (!file.ok()) return std::nullopt;
  std::string text(std::min<uint64_t>(file.value()->size(), kManifestBytesMax), '\0');
  file.value()->read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

// Writes all of it or nothing, even if the machine crashes.
void SharedStaging::write(const std::string& name, const std::string& text, int to_fd) {
  OutputFile file(fd_, path_, "text-" + Id128::random().hex(), queues_.next());
  file.append(std::as_bytes(std::span(text)));
  file.finish();
  if (renameat(fd_, file.name().c_str(), to_fd, name.c_str()) != 0) {
    throw errno_error("rename to " + path_ + "/" + name);
  }
  flush_folder(to_fd, path_);
}

std::optional<ShardRecord> SharedStaging::record_of(int shard) const {
  if (checkpoint_fd_ < 0) return std::nullopt;
  const std::optional<std::string> text = read(shard_name(shard) + ".json");
  if (!text) return std::nullopt;
  const Result<ShardRecord> record = parse_shard_record(*text);
  struct stat info {};
  const std::string name = shard_file_name(shard, shards_);
  const bool is_whole = record.ok() && fstatat(checkpoint_fd_, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
                        S_ISREG(info.st_mode) && static_cast<uint64_t>(info.st_size) == record.value().bytes;
  return is_whole ? std::optional(record.value()) : std::nullopt;
}

std::vector<std::optional<ShardRecord>> SharedStaging::records() const {
  std::vector<std::optional<ShardRecord>> found;
  for (int shard = 0; shard < shards_; ++shard) found.push_back(record_of(shard));
  return found;
}

int SharedStaging::finished() const {
  const auto found = records();
  return static_cast<int>(std::ranges::count_if(found, [](const auto& record) { return record.has_value(); }));
}

uint64_t SharedStaging::bytes_of_others() const {
  uint64_t bytes = 0;
  std::error_code ignored;  // files appear and disappear meanwhile
  for (const fs::directory_entry& entry : fs::directory_iterator(path_, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.find(kPart) == std::string::npos || own_parts_.contains(name)) continue;
    const uintmax_t size = entry.file_size(ignored);
    if (!ignored) bytes += size;
  }
  return bytes;
}

bool SharedStaging::is_published() const {
  struct stat info {};
  return fstatat(fd_, kCheckpoint, &info, AT_SYMLINK_NOFOLLOW) != 0;
}

Status SharedStaging::publish(const std::vector<NamedText>& texts) {
  const auto turn = FileLock::wait(fd_, path_, kTurn, FileLock::Kind::kExclusive);
  if (!is_published()) {
    check_eq(finished(), shards_, "SharedStaging::publish: finished shards");
    for (const NamedText& text : texts) write(text.name, text.text, checkpoint_fd_);
    if (Status status = target_.publish(fd_, kCheckpoint); !status.ok()) return status;
  }
  discard();
  return ok_status();
}

}  // namespace optserve::checkpoint
