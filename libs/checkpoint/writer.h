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

// Refuses invalid models, and numbers of shards that the model does not allow.
Status check_plan(const ShardPlan& plan);
// Bytes of one shard's tensors, the same for all.
uint64_t shard_bytes(const ShardPlan& plan);

// The manifest of a checkpoint, but for `files`: the S shards in order, then the tokenizer's two if it has one.
struct ManifestNotes {
  SourceInfo source;
  std::string created_by;
};
Manifest make_manifest(const ShardPlan& plan, std::vector<FileEntry> files, const ManifestNotes& notes);

// The file of one shard: its header, and then the blocks of shard_tensors(plan) in their order, each row-major, without
// gaps.
class ShardStream {
 public:
  ShardStream(OutputFile file, const ShardPlan& plan, int shard);

  void append(std::span<const std::byte> bytes);
  // Every byte must be there.
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
  // Drops what is not finished.
  ~ShardsWriter();
  ShardsWriter(const ShardsWriter&) = delete;
  ShardsWriter& operator=(const ShardsWriter&) = delete;

  std::vector<int> shards() const;  // ascending
  // Next bytes of one of these shards; see ShardStream.
  void append(int shard, std::span<const std::byte> bytes);
  // Every shard must be complete. `notes` are of each of shards().
  void finish(const std::vector<ShardNotes>& notes);

 private:
  SharedStaging& staging_;
  std::vector<ShardClaim> claims_;
  std::vector<ShardStream> streams_;
  std::vector<size_t> places_;  // of a shard in the two
  bool finished_ = false;
};

// Writes a whole checkpoint at once into a staging folder of its own: for programs whose weights are at hand.
class CheckpointWriter {
 public:
  using Plan = ShardPlan;

  // Refuses a target that exists and a parent that does not. Throws Error when the environment fails.
  static Result<std::unique_ptr<CheckpointWriter>> create(const std::string& target, const Plan& plan);

  // Next bytes of a shard; see ShardStream.
  void append(int shard, std::span<const std::byte> bytes) { shards_.at(static_cast<size_t>(shard)).append(bytes); }
  // Both files of the tokenizer; for a model without one, do not call it.
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
