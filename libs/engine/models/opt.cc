#include "engine/models/opt.h"

namespace optserve::engine {

using model_spec::layer_tensor_name;

OptEmbedding::OptEmbedding(WeightLoader& loader) : tokens_(loader), positions_(loader.table("embed_positions.weight")) {
  if (loader.config().has_projections()) project_in_.emplace(loader, "project_in");
}

void OptEmbedding::forward(Exec& exec, const Batch& batch, Tensor x) const {
  if (project_in_) {
    const Tensor embedded = exec.workspace.embedded(batch.num_tokens);
    tokens_.forward(exec, batch.entry, {}, embedded);
    project_in_->forward(exec, embedded, x);
    exec.backend.add_positions(batch.entry.positions, positions_.view, x);
  } else {
    tokens_.forward(exec, batch.entry, positions_.view, x);
  }
}

OptLayer::OptLayer(WeightLoader& loader, int64_t index, backend::KvLayer kv)
    : norm_before_(loader.config().norm_before),
      attention_norm_(loader, layer_tensor_name(index, "attention_norm")),
      attention_(loader, index, kv),
      ffn_norm_(loader, layer_tensor_name(index, "ffn_norm")),
      mlp_(loader, index) {}

void OptLayer::attend(Exec& exec, const Batch& batch) const {
  const Tensor x = exec.workspace.x(batch.num_tokens), y = exec.workspace.y(batch.num_tokens);
  const Tensor partial = exec.workspace.partial(batch.num_tokens);
  attention_.forward_part(exec, batch, norm_before_ ? y : x, partial);
  const LayerNorm& norm = norm_before_ ? ffn_norm_ : attention_norm_;
  norm.sum_add_and_norm(exec, partial, attention_.bias(), x, y);  // x += attention; y = norm(x)
}

void OptLayer::feed(Exec& exec, const Batch& batch, const LayerNorm* next) const {
  const Tensor x = exec.workspace.x(batch.num_tokens), y = exec.workspace.y(batch.num_tokens);
  const Tensor partial = exec.workspace.partial(batch.num_tokens);
  mlp_.forward_part(exec, y, partial);
  if (norm_before_ && next == nullptr) {
    exec.communicator.all_reduce_sum(partial);
    exec.backend.add_bias_residual(partial, mlp_.bias(), x);
  } else if (norm_before_) {
    next->sum_add_and_norm(exec, partial, mlp_.bias(), x, y);  // x += mlp; y = norm(x)
  } else {
    ffn_norm_.sum_add_and_norm(exec, partial, mlp_.bias(), y, x);  // x = norm(y + mlp)
  }
}

OptModel::OptModel(WeightLoader& loader, const KvCache& cache)
    : norm_before_(loader.config().norm_before), embedding_(loader), head_(loader, embedding_.token_table()) {
  const model_spec::OptConfig& config = loader.config();
  layers_.reserve(static_cast<size_t>(config.num_layers));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) layers_.emplace_back(loader, layer, cache.layer(layer));
  if (config.has_final_norm()) final_norm_.emplace(loader, "final_norm");
}

Tensor OptModel::forward(Exec& exec, const Batch& batch) const {
  const Tensor x = exec.workspace.x(batch.num_tokens), y = exec.workspace.y(batch.num_tokens);
  embedding_.forward(exec, batch, x);
  if (norm_before_) layers_.front().attention_norm().forward(exec, x, y);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerNorm* next = nullptr;
    if (norm_before_ && i + 1 < layers_.size()) next = &layers_[i + 1].attention_norm();
    if (final_norm_ && i + 1 == layers_.size()) next = &*final_norm_;
    layers_[i].attend(exec, batch);
    layers_[i].feed(exec, batch, next);
  }
  return final_norm_ ? y : x;
}

}  // namespace optserve::engine
