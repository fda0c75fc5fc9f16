#include "checkpoint/writer.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>  // renameat2
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/check.h"
#include "base/ids.h"

namespace optserve::checkpoint {
namespace {

constexpr int kQueues = 2;                   // hashing and writing take about twice what the rest of a conversion does
constexpr size_t kQueuedBytesMax = 8 << 20;  // of one

}  // namespace

OutputFile::OutputFile(int folder_fd, const std::string& name, std::string path, WriteQueue& queue)
    : name_(name),
      path_(std::move(path)),
      queue_(queue),
      fd_(openat(folder_fd, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644)) {
  if (fd_ < 0) throw errno_error("create " + path_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : name_(std::move(other.name_)),
      path_(std::move(other.path_)),
      queue_(other.queue_),
      fd_(std::exchange(other.fd_, -1)),
      bytes_(other.bytes_),
      hash_(std::move(other.hash_)) {}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::append(std::span<const std::byte> bytes) {
  bytes_ += bytes.size();
  queue_.write({fd_, path_, hash_.get()}, bytes);
}

FileEntry OutputFile::finish() {
  queue_.flush();
  if (fsync(fd_) != 0) throw errno_error("fsync " + path_);
  if (::close(std::exchange(fd_, -1)) != 0) throw errno_error("close " + path_);
  return {name_, bytes_, to_hex(hash_->finish())};
}

CheckpointWriter::CheckpointWriter(std::string target, Plan plan) : target_(std::move(target)), plan_(std::move(plan)) {
  for (int i = 0; i < kQueues; ++i) queues_.push_back(std::make_unique<WriteQueue>(kQueuedBytesMax));
  while (target_.size() > 1 && target_.back() == '/') target_.pop_back();
  parent_ = std::filesystem::path(target_).parent_path().string();
  if (parent_.empty()) parent_ = ".";
}

Result<std::unique_ptr<CheckpointWriter>> CheckpointWriter::create(const std::string& target, const Plan& plan) {
  if (Status status = model_spec::validate(plan.config); !status.ok()) return status.refusal();
  if (Status status = check_shards(plan); !status.ok())
    return refuse(status.refusal().code, plan.config.name + ": " + status.refusal().message);
  std::unique_ptr<CheckpointWriter> writer(new CheckpointWriter(target, plan));  // private constructor
  const std::string base = std::filesystem::path(writer->target_).filename().string();
  if (base.empty() || base == "." || base == "..")
    return refuse(ErrorCode::kBadRequest, "'" + target + "' does not name a folder to create");
  writer->parent_fd_ = ::open(writer->parent_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (writer->parent_fd_ < 0) return refuse(ErrorCode::kBadRequest, writer->parent_ + ": no such folder");
  struct stat info {};
  if (fstatat(writer->parent_fd_, base.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0)
    return refuse(ErrorCode::kBadRequest, writer->target_ + ": exists already; remove it or choose another name");
  writer->staging_name_ = "." + base.substr(0, 100) + ".staging-" + Id128::random().hex();
  writer->open_staging();
  writer->open_shards();
  return writer;
}

void CheckpointWriter::open_staging() {
  if (mkdirat(parent_fd_, staging_name_.c_str(), 0755) != 0) throw errno_error("create a folder in " + parent_);
  staging_fd_ = openat(parent_fd_, staging_name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (staging_fd_ < 0) throw errno_error("open " + parent_ + "/" + staging_name_);
}

void CheckpointWriter::open_shards() {
  for (const StoredTensor& tensor : shard_tensors(plan_))
    shard_bytes_ += checked_bytes(tensor.shape, tensor.dtype).value_or(0);
  for (int shard = 0; shard < plan_.shards; ++shard) {
    const std::string name = shard_file_name(shard, plan_.shards);
    shards_.emplace_back(staging_fd_, name, parent_ + "/" + staging_name_ + "/" + name, queue_of(shard));
    const std::string header = shard_header(plan_, shard);
    shards_.back().append(std::as_bytes(std::span(header)));
  }
  appended_.resize(shards_.size());
}

CheckpointWriter::~CheckpointWriter() {
  queues_.clear();  // before the files that they write to
  shards_.clear();
  if (staging_fd_ >= 0) ::close(staging_fd_);
  if (!published_ && !staging_name_.empty()) {
    std::error_code ignored;  // a destructor has nobody to tell; the folder is hidden and never read
    std::filesystem::remove_all(std::filesystem::path(parent_) / staging_name_, ignored);
  }
  if (parent_fd_ >= 0) ::close(parent_fd_);
}

void CheckpointWriter::append(int shard, std::span<const std::byte> bytes) {
  const auto index = static_cast<size_t>(shard);
  check(index < shards_.size(), "CheckpointWriter::append: no such shard");
  appended_[index] += bytes.size();
  check(appended_[index] <= shard_bytes_, "CheckpointWriter::append: more bytes than the shard holds");
  shards_[index].append(bytes);
}

void CheckpointWriter::write_file(const std::string& name, std::string_view text, bool listed) {
  OutputFile file(staging_fd_, name, parent_ + "/" + staging_name_ + "/" + name, queue_of(0));
  file.append(std::as_bytes(std::span(text)));
  const FileEntry entry = file.finish();
  if (listed) tokenizer_files_.push_back(entry);
}

void CheckpointWriter::add_tokenizer(std::string_view vocab, std::string_view merges) {
  check(tokenizer_files_.empty(), "CheckpointWriter::add_tokenizer: called twice");
  write_file(std::string(kVocabName), vocab, true);
  write_file(std::string(kMergesName), merges, true);
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
  write_file(std::string(kManifestName), text, false);
  if (fsync(staging_fd_) != 0) throw errno_error("fsync " + staging_name_);
  return rename_to_target();
}

Status CheckpointWriter::rename_to_target() {
  const std::string base = std::filesystem::path(target_).filename().string();
  int failed = renameat2(parent_fd_, staging_name_.c_str(), parent_fd_, base.c_str(), RENAME_NOREPLACE);
  if (failed != 0 && (errno == EINVAL || errno == ENOSYS)) {
    // Some network file systems lack the flag. A plain rename still refuses to replace a folder that holds anything.
    failed = renameat(parent_fd_, staging_name_.c_str(), parent_fd_, base.c_str());
  }
  if (failed != 0 && (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR))
    return refuse(ErrorCode::kBadRequest, target_ + ": appeared while the conversion ran; nothing was replaced");
  if (failed != 0) throw errno_error("rename to " + target_);
  published_ = true;
  if (fsync(parent_fd_) != 0) throw errno_error("fsync " + parent_);
  return ok_status();
}

}  // namespace optserve::checkpoint
