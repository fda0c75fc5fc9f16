#include "checkpoint/writer.h"

#include "base/check.h"

namespace optserve::checkpoint {

Result<std::unique_ptr<CheckpointWriter>> CheckpointWriter::create(const std::string& target, const Plan& plan) {
  if (Status status = model_spec::validate(plan.config); !status.ok()) return status.refusal();
  if (Status status = check_shards(plan); !status.ok())
    return refuse(status.refusal().code, plan.config.name + ": " + status.refusal().message);
  Result<std::unique_ptr<StagingFolder>> folder = StagingFolder::create(target);
  if (!folder.ok()) return folder.refusal();
  std::unique_ptr<CheckpointWriter> writer(
      new CheckpointWriter(std::move(folder).value(), plan));  // private constructor
  writer->open_shards();
  return writer;
}

void CheckpointWriter::open_shards() {
  for (const StoredTensor& tensor : shard_tensors(plan_))
    shard_bytes_ += checked_bytes(tensor.shape, tensor.dtype).value_or(0);
  for (int shard = 0; shard < plan_.shards; ++shard) {
    shards_.push_back(folder_->new_file(shard_file_name(shard, plan_.shards)));
    const std::string header = shard_header(plan_, shard);
    shards_.back().append(std::as_bytes(std::span(header)));
  }
  appended_.resize(shards_.size());
}

void CheckpointWriter::append(int shard, std::span<const std::byte> bytes) {
  const auto index = static_cast<size_t>(shard);
  check(index < shards_.size(), "CheckpointWriter::append: no such shard");
  appended_[index] += bytes.size();
  check(appended_[index] <= shard_bytes_, "CheckpointWriter::append: more bytes than the shard holds");
  shards_[index].append(bytes);
}

void CheckpointWriter::add_tokenizer(std::string_view vocab, std::string_view merges) {
  check(tokenizer_files_.empty(), "CheckpointWriter::add_tokenizer: called twice");
  tokenizer_files_.push_back(folder_->write_file(std::string(kVocabName), vocab));
  tokenizer_files_.push_back(folder_->write_file(std::string(kMergesName), merges));
}

Status CheckpointWriter::publish(const SourceInfo& source, std::string_view created_by) {
  Manifest manifest;
  manifest.config = plan_.config;
  manifest.dtype = plan_.dtype;
  manifest.shards = plan_.shards;
  manifest.quantisation = plan_.quantisation;
  manifest.source = source;
  manifest.created_by = created_by;
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    check_eq(appended_[shard], shard_bytes_, "CheckpointWriter::publish: bytes of a shard");
    manifest.files.push_back(shards_[shard].finish());
  }
  if (!tokenizer_files_.empty()) {
    manifest.vocab_file = kVocabName;
    manifest.merges_file = kMergesName;
    manifest.files.insert(manifest.files.end(), tokenizer_files_.begin(), tokenizer_files_.end());
  }
  const std::string text = manifest_text(manifest);
  if (const Result<Manifest> readable = parse_manifest(text); !readable.ok()) return readable.refusal();
  folder_->write_file(std::string(kManifestName), text);
  return folder_->publish();
}

}  // namespace optserve::checkpoint
