// OPT: embeddings, layers of attention and feed-forward, final norm. Two orders of norm and residual exist: before each
// block (all published sizes but one) and after it (350M, which also projects between a narrower token table and the
// stream).
#pragma once

#include <optional>
#include <vector>

#include "engine/layers/attention.h"
#include "engine/layers/embedding.h"
#include "engine/layers/layer_norm.h"
#include "engine/layers/logits_head.h"
#include "engine/layers/mlp.h"
#include "engine/workspace.h"

namespace optserve::engine {

class OptLayer {
 public:
  OptLayer(WeightLoader& loader, int64_t index, const KvCache& cache);
  // x: residual stream, y: its attention norm; on return y is the norm that `next` makes of the new x.
  void forward_norm_before(Exec& exec, const Batch& batch, const LayerNorm& next) const;
  // x: [n, hidden], replaced by the layer's output.
  void forward_norm_after(Exec& exec, const Batch& batch) const;
  const LayerNorm& attention_norm() const { return attention_norm_; }

 private:
  LayerNorm attention_norm_;
  Attention attention_;
  LayerNorm ffn_norm_;
  Mlp mlp_;
};

class OptModel {
 public:
  OptModel(WeightLoader& loader, const KvCache& cache);
  // The last hidden states of the batch, [n, hidden], ready for logits(). Valid until the next call.
  Tensor forward(Exec& exec, const Batch& batch) const;
  // See LogitsHead::forward.
  Tensor logits(Exec& exec, Tensor hidden, Tensor rows) const { return head_.forward(exec, hidden, rows); }

 private:
  void embed(Exec& exec, const Batch& batch, Tensor x) const;

  VocabParallelEmbedding tokens_;
  PositionEmbedding positions_;
  std::optional<Linear> project_in_;
  std::vector<OptLayer> layers_;
  std::optional<LayerNorm> final_norm_;  // absent where norms come after the blocks
  LogitsHead head_;
};

}  // namespace optserve::engine
