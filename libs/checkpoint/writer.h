// Writes a sharded checkpoint so that either nothing or all of it becomes visible: files in a staging folder beside the
// target, fsync, manifest last, rename.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/layout.h"
#include "checkpoint/manifest.h"
#include "checkpoint/sha256.h"
#include "checkpoint/write_queue.h"

namespace optserve::checkpoint {

// A new file that is written once, from front to back, by the thread of `queue`. Throws Error when the environment
// fails (disk full), perhaps only in a later call. The queue ends before the file does.
class OutputFile {
 public:
  // In the open folder `folder_fd`; the name must not exist yet. `path` is for messages.
  OutputFile(int folder_fd, const std::string& name, std::string path, WriteQueue& queue);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;

  void append(std::span<const std::byte> bytes);
  // Flushes to the disk, closes, and says what was written.
  FileEntry finish();

 private:
  std::string name_;
  std::string path_;
  WriteQueue& queue_;
  int fd_;
  uint64_t bytes_ = 0;
  std::unique_ptr<Sha256> hash_ = std::make_unique<Sha256>();  // where it is when the file moves
};

class CheckpointWriter {
 public:
  using Plan = ShardPlan;

  // Refuses a target that exists and a parent that does not. Throws Error when the environment fails.
  static Result<std::unique_ptr<CheckpointWriter>> create(const std::string& target, const Plan& plan);
  // Removes the staging folder unless publish() succeeded.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Next bytes of a shard: the blocks of shard_tensors(plan) in their order, each row-major, without gaps.
  void append(int shard, std::span<const std::byte> bytes);
  // Both tokenizer files, or neither.
  void add_tokenizer(std::string_view vocab, std::string_view merges);
  // Every shard must be complete. Refused if the target has appeared meanwhile.
  Status publish(const SourceInfo& source, std::string_view created_by);

  uint64_t shard_bytes() const { return shard_bytes_; }  // of one shard's tensors, the same for all

 private:
  CheckpointWriter(std::string target, Plan plan);
  void open_staging();
  void open_shards();
  WriteQueue& queue_of(int shard) { return *queues_[static_cast<size_t>(shard) % queues_.size()]; }
  void write_file(const std::string& name, std::string_view text, bool listed);
  Status rename_to_target();

  std::string target_;
  std::string parent_;
  std::string staging_name_;
  Plan plan_;
  int parent_fd_ = -1;
  int staging_fd_ = -1;
  bool published_ = false;
  uint64_t shard_bytes_ = 0;
  std::vector<OutputFile> shards_;
  std::vector<uint64_t> appended_;
  std::vector<FileEntry> tokenizer_files_;
  std::vector<std::unique_ptr<WriteQueue>> queues_;  // each has every second shard
};

}  // namespace optserve::checkpoint
