#include "checkpoint/writer.h"

#include "base/check.h"

namespace optserve::checkpoint {

Status check_plan(const ShardPlan& plan) {
  if (Status status = model_spec::validate(plan.config); !status.ok()) return status;
  if (Status status = check_shards(plan); !status.ok()) {
    return refuse(status.refusal().code, plan.config.name + ": " + status.refusal().message);
  }
  return ok_status();
}

uint64_t shard_bytes(const ShardPlan& plan) {
  uint64_t bytes = 0;
  for (const StoredTensor& tensor : shard_tensors(plan)) bytes += checked_bytes(tensor.shape, tensor.dtype).value_or(0);
  return bytes;
}

Manifest make_manifest(const ShardPlan& plan, std::vector<FileEntry> files, const ManifestNotes& notes) {
  Manifest manifest;
  manifest.config = plan.config;
  manifest.dtype = plan.dtype;
  manifest.shards = plan.shards;
  manifest.quantisation = plan.quantisation;
  manifest.source = notes.source;
  manifest.created_by = notes.created_by;
  manifest.files = std::move(files);
  if (manifest.files.size() > static_cast<size_t>(plan.shards)) {
    manifest.vocab_file = kVocabName;
    manifest.merges_file = kMergesName;
    if (manifest.files.size() > static_cast<size_t>(plan.shards) + 2) manifest.added_file = kAddedName;
  }
  return manifest;
}

ShardStream::ShardStream(OutputFile file, const ShardPlan& plan, int shard)
    : file_(std::move(file)), bytes_left_(shard_bytes(plan)) {
  const std::string header = shard_header(plan, shard);
  file_.append(std::as_bytes(std::span(header)));
}

void ShardStream::append(std::span<const std::byte> bytes) {
  check(bytes.size() <= bytes_left_, "ShardStream::append: more bytes than the shard holds");
  bytes_left_ -= bytes.size();
  file_.append(bytes);
}

OutputFile& ShardStream::complete() {
  check_eq(bytes_left_, uint64_t{0}, "ShardStream::complete: bytes that are missing");
  return file_;
}

ShardsWriter::ShardsWriter(SharedStaging& staging, const ShardPlan& plan, std::vector<ShardClaim> claims)
    : staging_(staging), claims_(std::move(claims)), places_(static_cast<size_t>(plan.shards), SIZE_MAX) {
  for (const ShardClaim& claim : claims_) {
    places_.at(static_cast<size_t>(claim.shard())) = streams_.size();
    streams_.emplace_back(staging.new_part(claim), plan, claim.shard());
  }
}

ShardsWriter::~ShardsWriter() {
  if (finished_) return;
  for (ShardStream& stream : streams_) staging_.drop(stream.file());
}

std::vector<int> ShardsWriter::shards() const {
  std::vector<int> shards;
  for (const ShardClaim& claim : claims_) shards.push_back(claim.shard());
  return shards;
}

void ShardsWriter::append(int shard, std::span<const std::byte> bytes) {
  streams_.at(places_.at(static_cast<size_t>(shard))).append(bytes);
}

void ShardsWriter::finish(const std::vector<ShardNotes>& notes) {
  check_eq(notes.size(), claims_.size(), "ShardsWriter::finish: notes");
  for (size_t i = 0; i < claims_.size(); ++i) staging_.finish(claims_[i], streams_[i].complete(), notes[i]);
  finished_ = true;
}

Result<std::unique_ptr<CheckpointWriter>> CheckpointWriter::create(const std::string& target, const Plan& plan) {
  if (Status status = check_plan(plan); !status.ok()) return status.refusal();
  Result<std::unique_ptr<StagingFolder>> folder = StagingFolder::create(target);
  if (!folder.ok()) return folder.refusal();
  std::unique_ptr<CheckpointWriter> writer(
      new CheckpointWriter(std::move(folder).value(), plan));  // private constructor
  for (int shard = 0; shard < plan.shards; ++shard) {
    writer->shards_.emplace_back(writer->folder_->new_file(shard_file_name(shard, plan.shards)), plan, shard);
  }
  return writer;
}

void CheckpointWriter::add_tokenizer(std::string_view vocab, std::string_view merges) {
  check(tokenizer_files_.empty(), "CheckpointWriter::add_tokenizer: called twice");
  tokenizer_files_.push_back(folder_->write_file(std::string(kVocabName), vocab));
  tokenizer_files_.push_back(folder_->write_file(std::string(kMergesName), merges));
}

Status CheckpointWriter::publish(const SourceInfo& source, std::string_view created_by) {
  std::vector<FileEntry> files;
  for (ShardStream& shard : shards_) files.push_back(shard.complete().finish());
  files.insert(files.end(), tokenizer_files_.begin(), tokenizer_files_.end());
  const std::string text = manifest_text(make_manifest(plan_, std::move(files), {source, std::string(created_by)}));
  if (const Result<Manifest> readable = parse_manifest(text); !readable.ok()) return readable.refusal();
  folder_->write_file(std::string(kManifestName), text);
  return folder_->publish();
}

}  // namespace optserve::checkpoint
