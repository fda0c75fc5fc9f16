#include "checkpoint/reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "base/hex.h"
#include "base/sha256.h"

namespace optserve::checkpoint {
namespace {

constexpr size_t kReadBytes = 4 << 20;
constexpr size_t kFaultsShown = 20;

uint64_t digest_prefix(std::string_view text) {
  uint64_t value = 0;
  const Sha256::Digest digest = sha256(text);
  for (size_t i = 0; i < 8; ++i) value = (value << 8) | digest[i];
  return value;
}

// The faults, one per line, cut to a readable number.
std::string summary_of(const std::vector<std::string>& faults) {
  std::string text;
  for (size_t i = 0; i < std::min(faults.size(), kFaultsShown); ++i) text += (i > 0 ? "\n  " : "") + faults[i];
  if (faults.size() > kFaultsShown) text += "\n  and " + std::to_string(faults.size() - kFaultsShown) + " more";
  return text;
}

// Compares a shard's header with the tensors it must hold; appends one sentence per fault.
void compare(const SafetensorsHeader& header, const std::vector<StoredTensor>& expected, const std::string& file,
             std::vector<std::string>& faults) {
  const auto describe = [](const StoredTensor& tensor) {
    return std::string(dtype_name(tensor.dtype)) + shape_text(tensor.shape);
  };
  for (const StoredTensor& wanted : expected) {
    const StoredTensor* stored = header.find(wanted.name);
    if (stored == nullptr) {
      faults.push_back(file + ": tensor '" + wanted.name + "' is missing");
    } else if (stored->shape != wanted.shape || stored->dtype != wanted.dtype) {
      faults.push_back(file + ": tensor '" + wanted.name + "' is " + describe(*stored) + ", expected " +
                       describe(wanted));
    }
  }
  if (header.tensors.size() <= expected.size()) return;
  std::unordered_map<std::string_view, bool> known;
  for (const StoredTensor& wanted : expected) known[wanted.name] = true;
  for (const StoredTensor& stored : header.tensors) {
    if (!known.contains(stored.name)) faults.push_back(file + ": tensor '" + stored.name + "' is not expected");
  }
}

}  // namespace

Result<CheckpointReader> CheckpointReader::open(const std::string& folder) {
  struct stat info {};
  if (stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return refuse(ErrorCode::kBadRequest, folder + ": expected the folder of a converted checkpoint, found " +
                                              (stat(folder.c_str(), &info) != 0 ? "nothing" : "a file"));
  }
  Result<std::string> text = read_text_file(folder + "/" + std::string(kManifestName), kManifestBytesMax);
  if (!text.ok()) {
    return refuse(ErrorCode::kUnsupportedFormat,
                  folder + ": not a converted checkpoint (" + text.refusal().message + "); convert it first");
  }
  Result<Manifest> manifest = parse_manifest(text.value());
  if (!manifest.ok()) return refuse(manifest.refusal().code, folder + ": " + manifest.refusal().message);
  CheckpointReader reader;
  reader.folder_ = folder;
  reader.manifest_ = std::move(manifest).value();
  reader.manifest_digest_ = digest_prefix(text.value());
  reader.plan_ = {reader.manifest_.config, reader.manifest_.dtype, reader.manifest_.shards,
                  reader.manifest_.quantisation};
  reader.tensors_ = model_spec::opt_tensors(reader.manifest_.config);
  if (Status status = reader.open_files(); !status.ok()) return status.refusal();
  return reader;
}

Status CheckpointReader::open_files() {
  const std::vector<StoredTensor> expected = shard_tensors(plan_);
  std::vector<std::string> faults;
  for (size_t i = 0; i < manifest_.files.size(); ++i) {
    const FileEntry& entry = manifest_.files[i];
    Result<std::unique_ptr<InputFile>> file = InputFile::open(folder_ + "/" + entry.name);
    if (!file.ok()) {
      faults.push_back(entry.name + " is missing or unreadable: " + file.refusal().message);
      continue;
    }
    if (file.value()->size() != entry.bytes) {
      faults.push_back(entry.name + " has " + std::to_string(file.value()->size()) + " bytes, the manifest says " +
                       std::to_string(entry.bytes));
      continue;
    }
    if (i >= static_cast<size_t>(manifest_.shards)) continue;
    Result<SafetensorsHeader> header = read_safetensors(*file.value());
    if (!header.ok()) {
      faults.push_back(header.refusal().message);
      continue;
    }
    compare(header.value(), expected, entry.name, faults);
    const auto offset_of = [&header](const std::string& name) {
      const StoredTensor* stored = header.value().find(name);
      return stored == nullptr ? 0 : stored->offset;
    };
    Shard shard{std::move(file).value(), {}, {}};
    for (const model_spec::TensorSpec& spec : tensors_) {
      shard.values.push_back(offset_of(spec.name));
      shard.scales.push_back(offset_of(scale_name(spec)));
    }
    shards_.push_back(std::move(shard));
  }
  if (faults.empty()) return ok_status();
  return refuse(ErrorCode::kDataCorrupt,
                folder_ + ": damaged checkpoint of " + manifest_.config.name + ":\n  " + summary_of(faults));
}

std::string CheckpointReader::vocab_path() const {
  return manifest_.vocab_file.empty() ? "" : folder_ + "/" + manifest_.vocab_file;
}

std::string CheckpointReader::merges_path() const {
  return manifest_.merges_file.empty() ? "" : folder_ + "/" + manifest_.merges_file;
}

std::string CheckpointReader::added_path() const {
  return manifest_.added_file.empty() ? "" : folder_ + "/" + manifest_.added_file;
}

Status CheckpointReader::check_world(int world) const {
  if (world >= 1 && manifest_.shards % world == 0) return ok_status();
  std::string legal;
  for (int size = 1; size <= manifest_.shards; ++size) {
    if (manifest_.shards % size == 0) legal += (legal.empty() ? "" : ", ") + std::to_string(size);
  }
  return refuse(ErrorCode::kBadRequest, folder_ + ": has " + std::to_string(manifest_.shards) +
                                            " shards and serves groups of " + legal + " ranks, not " +
                                            std::to_string(world));
}

Status CheckpointReader::verify_file(const FileEntry& entry, const std::function<void(uint64_t)>& on_bytes) const {
  Result<std::unique_ptr<InputFile>> file = InputFile::open(folder_ + "/" + entry.name);
  if (!file.ok()) return file.refusal();
  Sha256 hash;
  std::vector<std::byte> chunk(std::min<uint64_t>(kReadBytes, entry.bytes));
  for (uint64_t offset = 0; offset < entry.bytes;) {
    const std::span<std::byte> part(chunk.data(), std::min<uint64_t>(chunk.size(), entry.bytes - offset));
    file.value()->read_at(offset, part);
    hash.update(part);
    offset += part.size();
    on_bytes(part.size());
  }
  const std::string found = to_hex(hash.finish());
  if (found == entry.sha256) return ok_status();
  return refuse(ErrorCode::kDataCorrupt, folder_ + "/" + entry.name + ": SHA-256 is " + found + ", the manifest says " +
                                             entry.sha256 + "; the file is damaged");
}

Status CheckpointReader::verify_checksums(int rank, int world, int threads, const Progress& progress) const {
  check(check_world(world).ok() && rank >= 0 && rank < world, "verify_checksums: rank and world");
  const int per_rank = manifest_.shards / world;
  std::vector<const FileEntry*> files;
  uint64_t total = 0;
  for (size_t i = 0; i < manifest_.files.size(); ++i) {
    const int shard = static_cast<int>(i);
    if (shard < manifest_.shards && shard / per_rank != rank) continue;
    files.push_back(&manifest_.files[i]);
    total += manifest_.files[i].bytes;
  }
  std::mutex mutex;  // guards the next four variables
  size_t next = 0;
  uint64_t done = 0;
  std::vector<std::string> faults;
  std::exception_ptr failure;
  const auto work = [&] {
    for (;;) {
      const FileEntry* entry = nullptr;
      {
        const std::lock_guard lock(mutex);
        if (next == files.size() || failure) return;
        entry = files[next++];
      }
      try {
        const Status status = verify_file(*entry, [&](uint64_t bytes) {
          const std::lock_guard lock(mutex);
          done += bytes;
          if (progress) progress(done, total);
        });
        const std::lock_guard lock(mutex);
        if (!status.ok()) faults.push_back(status.refusal().message);
      } catch (...) {
        const std::lock_guard lock(mutex);
        failure = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> workers;
    for (int i = 1; i < std::min<int>(threads, static_cast<int>(files.size())); ++i) workers.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
  if (faults.empty()) return ok_status();
  std::sort(faults.begin(), faults.end());
  return refuse(ErrorCode::kDataCorrupt, summary_of(faults));
}

uint64_t CheckpointReader::block_bytes(const model_spec::TensorSpec& spec, int world) const {
  return stored_block(spec, format(spec), world).value_bytes(format(spec));
}

int64_t CheckpointReader::block_scales(const model_spec::TensorSpec& spec, int world) const {
  return stored_block(spec, format(spec), world).scales();
}

// Each of `groups` runs of rows is cut over the shards: gather shard by shard within each run.
void CheckpointReader::read_groups(const Part& part, int64_t groups, std::span<std::byte> out) const {
  const size_t piece = out.size() / static_cast<size_t>(groups * part.shard_count);
  for (int j = 0; j < part.shard_count; ++j) {
    const Shard& shard = shards_[static_cast<size_t>(part.first_shard + j)];
    for (int64_t group = 0; group < groups; ++group) {
      const auto place = static_cast<size_t>(group * part.shard_count + j) * piece;
      shard.file->read_at((shard.*part.offsets)[part.tensor] + static_cast<uint64_t>(group) * piece,
                          out.subspan(place, piece));
    }
  }
}

// Each row of the block is one run of columns per shard.
void CheckpointReader::read_columns(const Part& part, std::span<std::byte> out) const {
  const auto rows = static_cast<size_t>(part.rows);
  const size_t row_bytes = out.size() / rows;
  const size_t piece = row_bytes / static_cast<size_t>(part.shard_count);
  const size_t rows_per_chunk = std::max<size_t>(1, kReadBytes / piece);
  std::vector<std::byte> chunk(std::min(rows, rows_per_chunk) * piece);
  for (int j = 0; j < part.shard_count; ++j) {
    const Shard& shard = shards_[static_cast<size_t>(part.first_shard + j)];
    for (size_t row = 0; row < rows;) {
      const size_t count = std::min(rows_per_chunk, rows - row);
      shard.file->read_at((shard.*part.offsets)[part.tensor] + row * piece, std::span(chunk).first(count * piece));
      for (size_t i = 0; i < count; ++i) {
        std::memcpy(out.data() + (row + i) * row_bytes + static_cast<size_t>(j) * piece, chunk.data() + i * piece,
                    piece);
      }
      row += count;
    }
  }
}

void CheckpointReader::read_part(const Part& part, std::span<std::byte> out) const {
  switch (tensors_[part.tensor].split) {
    case model_spec::Split::kReplicated:
    case model_spec::Split::kRows:
      return read_groups(part, 1, out);
    case model_spec::Split::kQkvRows:
      return read_groups(part, 3, out);
    case model_spec::Split::kColumns:
      return part.shard_count == 1 ? read_groups(part, 1, out) : read_columns(part, out);
  }
}

CheckpointReader::Part CheckpointReader::part_of(const model_spec::TensorSpec& spec, int rank, int world,
                                                 Offsets offsets) const {
  check(check_world(world).ok() && rank >= 0 && rank < world, "a block's rank and world");
  const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                  [&](const model_spec::TensorSpec& entry) { return entry.name == spec.name; });
  check(found != tensors_.end(), "a block of no tensor: " + spec.name);
  const int count = manifest_.shards / world;
  // What every shard holds as a whole is read from the rank's first shard: replicated tensors, and scales of whole rows
  // of a matrix whose columns are split.
  const bool is_whole = spec.split == model_spec::Split::kReplicated ||
                        (spec.split == model_spec::Split::kColumns && offsets == &Shard::scales &&
                         info(format(spec)).group == quant::kWholeRow);
  return {static_cast<size_t>(found - tensors_.begin()), offsets, rank * count, is_whole ? 1 : count,
          model_spec::block_of(spec, rank, world).row_count()};
}

void CheckpointReader::read_block(const model_spec::TensorSpec& spec, int rank, int world,
                                  std::span<std::byte> out) const {
  const Part part = part_of(spec, rank, world, &Shard::values);
  check_eq(out.size(), block_bytes(spec, world), "read_block: bytes of " + spec.name);
  read_part(part, out);
}

void CheckpointReader::read_scales(const model_spec::TensorSpec& spec, int rank, int world,
                                   std::span<float> out) const {
  const Part part = part_of(spec, rank, world, &Shard::scales);
  check_eq(static_cast<int64_t>(out.size()), block_scales(spec, world), "read_scales: scales of " + spec.name);
  if (!out.empty()) read_part(part, std::as_writable_bytes(out));
}

}  // namespace optserve::checkpoint
