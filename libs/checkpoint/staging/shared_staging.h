// The hidden folder in which a conversion grows shard by shard: `.NAME.staging` beside the target. It outlives the
// processes that work in it, so that a later one can resume, and several can work in it side by side.
//
//   conversion.json   what is converted; another conversion is refused
//   members           locked (shared) by all who work here; a process that locks it alone may remove the folder
//   turn              locked for a moment by a process that claims or publishes
//   claim-003         locked while somebody writes shard 3
//   shard-003.part-*  what has been written of it so far
//   shard-003.json    its size and digest, once it is finished
//   checkpoint/       the finished shards; this folder becomes the target
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file_lock.h"
#include "checkpoint/io/output_file.h"
#include "checkpoint/staging/staging_record.h"
#include "checkpoint/staging/target_folder.h"

namespace optserve::checkpoint {

// The right to write one shard. It lasts as long as the object, and ends with the process as well.
class ShardClaim {
 public:
  int shard() const { return shard_; }

 private:
  friend class SharedStaging;
  ShardClaim(int shard, FileLock lock) : shard_(shard), lock_(std::move(lock)) {}

  int shard_;
  FileLock lock_;
};

struct StagingOptions {
  std::string target;
  std::string record;  // a JSON object; equal for the same conversion only
  int shards = 1;
  bool restart = false;  // first removes what an earlier attempt has left; refused while one is running
};

struct NamedText {
  std::string name;
  std::string text;
};

class SharedStaging {
 public:
  // Makes the folder, joins the processes that work in it, or resumes what an ended process has left. Refuses a target
  // that exists, a parent that does not, and the folder of another conversion if it holds finished shards or is in use.
  // Throws Error when the environment fails, as every call does.
  static Result<std::unique_ptr<SharedStaging>> join(const StagingOptions& options);
  // Removes the folder unless other processes work in it or it holds finished shards that are still of use.
  ~SharedStaging();
  SharedStaging(const SharedStaging&) = delete;
  SharedStaging& operator=(const SharedStaging&) = delete;

  // Claims the first unfinished shards that nobody writes, at most `shards_max`.
  std::vector<ShardClaim> claim(int shards_max);
  // The file for the claimed shard's bytes. The folder must outlive it.
  OutputFile new_part(const ShardClaim& claim);
  // Completes the part: flushes it to the disk, and then marks the shard as finished for all processes.
  void finish(const ShardClaim& claim, OutputFile& part, const ShardNotes& notes);
  // Removes a part that nobody needs.
  void drop(const OutputFile& part);

  // The record of each shard; nullopt while the shard is unfinished.
  std::vector<std::optional<ShardRecord>> records() const;
  int finished() const;
  // Bytes of shards that others are writing.
  uint64_t bytes_of_others() const;
  // Whether another process has published the target.
  bool is_published() const;

  // To be called when every shard is finished: adds the texts and publishes everything, or finds that another process
  // has. Refused if something else has created the target meanwhile.
  Status publish(const std::vector<NamedText>& texts);
  // Declares the finished shards useless, so that the last process that leaves removes the folder.
  void discard() { is_useless_ = true; }

  const std::string& path() const { return path_; }

 private:
  SharedStaging(TargetFolder target, int shards);
  // False: the folder was removed in between.
  bool enter();
  // False: it was removed, for a new start.
  Result<bool> settle(const StagingOptions& options);
  bool try_to_remove();
  std::optional<ShardRecord> record_of(int shard) const;
  std::optional<std::string> read(const std::string& name) const;
  void write(const std::string& name, const std::string& text, int to_fd);
  void remove_parts(int shard);
  void leave();

  TargetFolder target_;
  int shards_;
  std::string name_, path_;
  int fd_ = -1, checkpoint_fd_ = -1;
  std::optional<FileLock> members_;
  bool is_useless_ = false;
  bool is_kept_ = false;  // it belongs to another conversion
  std::set<std::string> own_parts_;
  WriteQueues queues_;
};

}  // namespace optserve::checkpoint
