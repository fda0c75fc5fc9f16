#include "engine/models/opt.h"

namespace optserve::engine {

using model_spec::layer_tensor_name;

OptLayer::OptLayer(WeightLoader& loader, int64_t index, const KvCache& cache)
    : attention_norm_(loader, layer_tensor_name(index, "attention_norm")),
      attention_(loader, index, cache.layer(index)),
      ffn_norm_(loader, layer_tensor_name(index, "ffn_norm")),
      mlp_(loader, index) {}

void OptLayer::forward_norm_before(Exec& exec, const Batch& batch, const LayerNorm& next) const {
  const Tensor x = exec.workspace.x(batch.num_tokens), y = exec.workspace.y(batch.num_tokens);
  const Tensor partial = exec.workspace.partial(batch.num_tokens);
  attention_.forward_without_bias(exec, batch, y, partial);
  ffn_norm_.add_and_norm(exec, partial, attention_.bias(), x, y);  // x += attention; y = norm(x)
  mlp_.forward_without_bias(exec, y, partial);
  next.add_and_norm(exec, partial, mlp_.bias(), x, y);  // x += mlp; y = norm(x)
}

void OptLayer::forward_norm_after(Exec& exec, const Batch& batch) const {
  const Tensor x = exec.workspace.x(batch.num_tokens), y = exec.workspace.y(batch.num_tokens);
  const Tensor partial = exec.workspace.partial(batch.num_tokens);
  attention_.forward_without_bias(exec, batch, x, partial);
  attention_norm_.add_and_norm(exec, partial, attention_.bias(), x, y);  // y = norm(x + attention)
  mlp_.forward_without_bias(exec, y, partial);
  ffn_norm_.add_and_norm(exec, partial, mlp_.bias(), y, x);  // x = norm(y + mlp)
}

OptModel::OptModel(WeightLoader& loader, const KvCache& cache)
    : tokens_(loader), positions_(loader), head_(loader, tokens_.table()) {
  const model_spec::OptConfig& config = loader.config();
  if (config.has_projections()) project_in_.emplace(loader, "project_in");
  layers_.reserve(static_cast<size_t>(config.num_layers));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) layers_.emplace_back(loader, layer, cache);
  if (config.has_final_norm()) final_norm_.emplace(loader, "final_norm");
}

void OptModel::embed(Exec& exec, const Batch& batch, Tensor x) const {
  if (project_in_) {
    const Tensor embedded = exec.workspace.embedded(batch.num_tokens);
    tokens_.forward(exec, batch.ids, embedded);
    project_in_->forward(exec, embedded, x);
  } else {
    tokens_.forward(exec, batch.ids, x);
  }
  positions_.add_to(exec, batch.positions, x);
}

Tensor OptModel::forward(Exec& exec, const Batch& batch) const {
  const Tensor x = exec.workspace.x(batch.num_tokens), y = exec.workspace.y(batch.num_tokens);
  embed(exec, batch, x);
  if (!final_norm_) {
    for (const OptLayer& layer : layers_) layer.forward_norm_after(exec, batch);
    return x;
  }
  layers_.front().attention_norm().forward(exec, x, y);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerNorm& next = i + 1 < layers_.size() ? layers_[i + 1].attention_norm() : *final_norm_;
    layers_[i].forward_norm_before(exec, batch, next);
  }
  return y;
}

}  // namespace optserve::engine
