// Writes the shards of a checkpoint so that either nothing or all of it becomes visible, the manifest last.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/manifest/layout.h"
#include "checkpoint/manifest/manifest.h"
#include "checkpoint/staging/shared_staging.h"
#include "checkpoint/staging/staging_folder.h"

namespace optserve::checkpoint {

// Refuses invalid models and shard counts that the model does not allow.
Status check_plan(const ShardPlan& plan);
// The bytes of a shard's tensors, which are the same for all shards.
uint64_t shard_bytes(const ShardPlan& plan);

// What a manifest says besides the plan and the files, which are the S shards in order and then the two files of the
// tokenizer, if there is one.
struct ManifestNotes {
  SourceInfo source;
  std::string created_by;
};
Manifest make_manifest(const ShardPlan& plan, std::vector<FileEntry> files, const ManifestNotes& notes);

// Writes the file of one shard: its header, and then the blocks of shard_tensors(plan) in their order, each row-major,
// without gaps.
class ShardStream {
 public:
  ShardStream(OutputFile file, const ShardPlan& plan, int shard);

  void append(std::span<const std::byte> bytes);
  // All bytes must have been appended.
  OutputFile& complete();
  OutputFile& file() { return file_; }

 private:
  OutputFile file_;
  uint64_t bytes_left_;
};

// Writes claimed shards side by side.
class ShardsWriter {
 public:
  // `staging` outlives the object. Throws Error when the environment fails, as every call does.
  ShardsWriter(SharedStaging& staging, const ShardPlan& plan, std::vector<ShardClaim> claims);
  // Drops shards that are not finished.
  ~ShardsWriter();
  ShardsWriter(const ShardsWriter&) = delete;
  ShardsWriter& operator=(const ShardsWriter&) = delete;

  std::vector<int> shards() const;  // ascending
  // The next bytes of one of these shards; see ShardStream.
  void append(int shard, std::span<const std::byte> bytes);
  // Every shard must be complete. `notes` has an element for each of shards().
  void finish(const std::vector<ShardNotes>& notes);

 private:
  SharedStaging& staging_;
  std::vector<ShardClaim> claims_;
  std::vector<ShardStream> streams_;
  std::vector<size_t> places_;  // by shard: its index in claims_ and streams_
  bool finished_ = false;
};

// Writes a whole checkpoint into a staging folder of its own, for programs that have all weights at hand.
class CheckpointWriter {
 public:
  using Plan = ShardPlan;

  // Refuses a target that exists and a parent that does not. Throws Error when the environment fails.
  static Result<std::unique_ptr<CheckpointWriter>> create(const std::string& target, const Plan& plan);

  // The next bytes of a shard; see ShardStream.
  void append(int shard, std::span<const std::byte> bytes) { shards_.at(static_cast<size_t>(shard)).append(bytes); }
  // Adds both files of the tokenizer. It is not called for a model without one.
  void add_tokenizer(std::string_view vocab, std::string_view merges);
  // Every shard must be complete. Refused if the target has appeared meanwhile.
  Status publish(const SourceInfo& source, std::string_view created_by);

  uint64_t shard_bytes() const { return checkpoint::shard_bytes(plan_); }

 private:
  CheckpointWriter(std::unique_ptr<StagingFolder> folder, Plan plan)
      : folder_(std::move(folder)), plan_(std::move(plan)) {}

  std::unique_ptr<StagingFolder> folder_;  // removes what is in it unless publish() succeeded
  Plan plan_;
  std::vector<ShardStream> shards_;
  std::vector<FileEntry> tokenizer_files_;
};

}  // namespace optserve::checkpoint
