// Writes a sharded checkpoint so that either nothing or all of it becomes visible: files in a staging folder, the
// manifest last.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/layout.h"
#include "checkpoint/manifest.h"
#include "checkpoint/staging_folder.h"

namespace optserve::checkpoint {

class CheckpointWriter {
 public:
  using Plan = ShardPlan;

  // Refuses a target that exists and a parent that does not. Throws Error when the environment fails.
  static Result<std::unique_ptr<CheckpointWriter>> create(const std::string& target, const Plan& plan);

  // Next bytes of a shard: the blocks of shard_tensors(plan) in their order, each row-major, without gaps.
  void append(int shard, std::span<const std::byte> bytes);
  // Both tokenizer files, or neither.
  void add_tokenizer(std::string_view vocab, std::string_view merges);
  // Every shard must be complete. Refused if the target has appeared meanwhile.
  Status publish(const SourceInfo& source, std::string_view created_by);

  uint64_t shard_bytes() const { return shard_bytes_; }  // of one shard's tensors, the same for all

 private:
  CheckpointWriter(std::unique_ptr<StagingFolder> folder, Plan plan)
      : folder_(std::move(folder)), plan_(std::move(plan)) {}
  void open_shards();

  std::unique_ptr<StagingFolder> folder_;  // removes what is in it unless publish() succeeded
  Plan plan_;
  uint64_t shard_bytes_ = 0;
  std::vector<OutputFile> shards_;
  std::vector<uint64_t> appended_;
  std::vector<FileEntry> tokenizer_files_;
};

}  // namespace optserve::checkpoint
