#include "engine/weight_loader.h"

#include "base/check.h"

namespace optserve::engine {

namespace {

uint64_t block_bytes(const WeightSource& source, const model_spec::TensorSpec& spec, int world) {
  return static_cast<uint64_t>(block_of(spec, 0, world).elements()) * tensor::dtype_bytes(source.dtype());
}

}  // namespace

WeightLoader::WeightLoader(const WeightSource& source, Backend& backend, int rank, int world, Progress progress)
    : source_(source), backend_(backend), rank_(rank), world_(world), progress_(std::move(progress)) {
  for (const model_spec::TensorSpec& spec : source.tensors()) {
    specs_.emplace(spec.name, &spec);
    total_ += block_bytes(source, spec, world);
  }
}

const model_spec::TensorSpec& WeightLoader::take(std::string_view name) {
  const auto found = specs_.find(name);
  if (found == specs_.end()) {
    check_failed("the tensor table has no " + std::string(name), std::source_location::current());
  }
  return *found->second;
}

const model_spec::TensorSpec& WeightLoader::note(const model_spec::TensorSpec& spec) {
  if (!taken_.insert(spec.name).second) return spec;  // a tied table, taken twice
  done_ += block_bytes(source_, spec, world_);
  if (progress_) progress_(done_, total_);
  return spec;
}

const void* WeightLoader::read(const model_spec::TensorSpec& spec) {
  turn_ = (turn_ + 1) % kBuffers;
  Staging& staging = staging_[turn_];
  if (staging.in_use_until) backend_.wait(*staging.in_use_until);
  const uint64_t bytes = block_bytes(source_, spec, world_);
  if (staging.bytes.bytes() < bytes) staging.bytes = backend_.allocate_host(bytes);
  source_.read_block(spec, rank_, world_, {static_cast<std::byte*>(staging.bytes.data()), bytes});
  return staging.bytes.data();
}

void WeightLoader::uploaded() { staging_[turn_].in_use_until = backend_.mark(); }

Weight WeightLoader::matrix(std::string_view name) {
  const model_spec::TensorSpec& spec = note(take(name));
  if (const auto random = source_.random_block(spec, rank_, world_)) return backend_.random_weight(*random);
  const model_spec::Block block = block_of(spec, rank_, world_);
  Weight weight = backend_.load_weight(read(spec), source_.dtype(), block.row_count(), block.cols);
  uploaded();
  return weight;
}

Table WeightLoader::table(std::string_view name) {
  const model_spec::TensorSpec& spec = note(take(name));
  const model_spec::Block block = block_of(spec, rank_, world_);
  Table table;
  if (const auto random = source_.random_block(spec, rank_, world_)) {
    table.buffer = backend_.random_table(*random);
  } else {
    table.buffer = backend_.load_table(read(spec), source_.dtype(), block.elements());
    uploaded();
  }
  const DType dtype = backend_.compute_dtype();
  table.view = spec.is_matrix ? table.buffer.view(dtype, {block.row_count(), block.cols})
                              : table.buffer.view(dtype, {block.row_count()});
  return table;
}

void WeightLoader::expect_all_taken() const {
  std::string left;
  for (const auto& [name, spec] : specs_) {
    if (!taken_.contains(name)) left += " " + name;
  }
  if (!left.empty()) check_failed("tensors that no layer took:" + left, std::source_location::current());
}

}  // namespace optserve::engine
