// Opens a sharded checkpoint and gives each rank its blocks. A checkpoint of S shards serves every group size that
// divides S: rank r of n reads the shards r S/n to (r+1) S/n - 1 and nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/io/byte_source.h"
#include "checkpoint/manifest/layout.h"
#include "checkpoint/manifest/manifest.h"
#include "checkpoint/safetensors/safetensors.h"
#include "model_spec/opt_tensors.h"

namespace optserve::checkpoint {

class CheckpointReader {
 public:
  using Progress = std::function<void(uint64_t bytes_done, uint64_t bytes_total)>;

  // Reads the manifest and every shard's header; compares file sizes, names, shapes and types with what the manifest's
  // config demands. All faults are reported together. Tensor bytes are not read yet.
  static Result<CheckpointReader> open(const std::string& folder);

  const std::string& folder() const { return folder_; }
  const Manifest& manifest() const { return manifest_; }
  const model_spec::OptConfig& config() const { return manifest_.config; }
  DType dtype() const { return manifest_.dtype; }  // of what is not quantised
  // The first eight bytes of the manifest's SHA-256, big-endian: equal in two processes only if they serve the same
  // files.
  uint64_t manifest_digest() const { return manifest_digest_; }
  // Paths of the tokenizer's files; empty when the checkpoint has none.
  std::string vocab_path() const;
  std::string merges_path() const;
  std::string added_path() const;
  // The tensor table of config(), whose entries read_block() takes.
  const std::vector<model_spec::TensorSpec>& tensors() const { return tensors_; }
  // How the values of a tensor are stored: in dtype(), or quantised with scales.
  quant::QuantFormat format(const model_spec::TensorSpec& spec) const { return format_of(spec, plan_); }

  // Refuses a group size that does not divide the shard count, and names those that do.
  Status check_world(int world) const;

  // Hashes the files that rank `rank` of `world` reads (all shards for rank 0 of 1) and those of the tokenizer, and
  // compares them with the manifest. `threads` files are hashed at a time. Throws Error when a file cannot be read.
  Status verify_checksums(int rank, int world, int threads, const Progress& progress = {}) const;

  // The bytes of the block that one of `world` ranks has of `spec`, stored as format() says, and of its scales, which
  // are 0 for plain formats.
  uint64_t block_bytes(const model_spec::TensorSpec& spec, int world) const;
  int64_t block_scales(const model_spec::TensorSpec& spec, int world) const;
  // Assembles the rank's block, row-major; `out` has exactly block_bytes() bytes, or block_scales() scales. `spec` is
  // an entry of tensors(), and `world` has passed check_world(). Several threads may read at once. Throws Error when a
  // file cannot be read.
  void read_block(const model_spec::TensorSpec& spec, int rank, int world, std::span<std::byte> out) const;
  void read_scales(const model_spec::TensorSpec& spec, int rank, int world, std::span<float> out) const;

 private:
  struct Shard {
    std::unique_ptr<InputFile> file;
    // The offset of each tensor of tensors_ from the start of the file.
    std::vector<uint64_t> values;
    std::vector<uint64_t> scales;
  };
  using Offsets = std::vector<uint64_t> Shard::*;
  // What is assembled: the values or the scales of one tensor, for one rank.
  struct Part {
    size_t tensor = 0;
    Offsets offsets = &Shard::values;
    int first_shard = 0;
    int shard_count = 1;
    int64_t rows = 0;  // of the rank's block
  };

  CheckpointReader() = default;
  Status open_files();
  Status verify_file(const FileEntry& entry, const std::function<void(uint64_t)>& on_bytes) const;
  Part part_of(const model_spec::TensorSpec& spec, int rank, int world, Offsets offsets) const;
  void read_part(const Part& part, std::span<std::byte> out) const;
  void read_columns(const Part& part, std::span<std::byte> out) const;
  void read_groups(const Part& part, int64_t groups, std::span<std::byte> out) const;

  std::string folder_;
  Manifest manifest_;
  ShardPlan plan_;
  uint64_t manifest_digest_ = 0;
  std::vector<model_spec::TensorSpec> tensors_;
  std::vector<Shard> shards_;
};

}  // namespace optserve::checkpoint
