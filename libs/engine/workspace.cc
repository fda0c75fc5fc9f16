#include "engine/workspace.h"

namespace optserve::engine {

uint64_t WorkspaceSizes::bytes(size_t element_bytes) const {
  const int64_t activations =
      rows_max * (3 * hidden + embed + qkv + heads_out + ffn) + logit_rows_max * (hidden + embed);
  const int64_t logits = logit_rows_max * vocab_local * (world == 1 ? 1 : 2 * world + 1);
  return static_cast<uint64_t>(activations) * element_bytes + static_cast<uint64_t>(logits) * sizeof(float);
}

WorkspaceSizes workspace_widths(const model_spec::OptConfig& config, int64_t world) {
  WorkspaceSizes sizes;
  sizes.hidden = config.hidden;
  sizes.embed = config.embed_dim;
  sizes.qkv = 3 * config.hidden / world;
  sizes.heads_out = config.hidden / world;
  sizes.ffn = config.ffn / world;
  sizes.vocab_local = config.vocab / world;
  sizes.world = world;
  return sizes;
}

Workspace::Workspace(backend::Backend& backend, const WorkspaceSizes& s)
    : sizes(s), compute_dtype_(backend.compute_dtype()) {
  const auto rows = [&](int64_t count, int64_t width) {
    return backend.allocate(static_cast<size_t>(count * width) * dtype_bytes(compute_dtype_));
  };
  x_ = rows(s.rows_max, s.hidden);
  y_ = rows(s.rows_max, s.hidden);
  partial_ = rows(s.rows_max, s.hidden);
  embedded_ = rows(s.rows_max, s.embed);
  qkv_ = rows(s.rows_max, s.qkv);
  heads_ = rows(s.rows_max, s.heads_out);
  ffn_ = rows(s.rows_max, s.ffn);
  head_hidden_ = rows(s.logit_rows_max, s.hidden);
  head_embedded_ = rows(s.logit_rows_max, s.embed);
  const size_t logits_bytes = static_cast<size_t>(s.logit_rows_max * s.vocab_local) * sizeof(float);
  logits_ = backend.allocate(logits_bytes * static_cast<size_t>(s.world));
  if (s.world == 1) return;
  local_logits_ = backend.allocate(logits_bytes);
  gathered_logits_ = backend.allocate(logits_bytes * static_cast<size_t>(s.world));
}

Tensor Workspace::local_logits(int64_t rows) const {
  return (sizes.world == 1 ? logits_ : local_logits_).view(DType::kF32, {rows, sizes.vocab_local});
}
Tensor Workspace::gathered_logits(int64_t rows) const {
  return gathered_logits_.view(DType::kF32, {sizes.world, rows, sizes.vocab_local});
}
Tensor Workspace::logits(int64_t rows) const {
  return logits_.view(DType::kF32, {rows, sizes.world * sizes.vocab_local});
}

}  // namespace optserve::engine
