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

// From ids and positions to the residual stream.
class OptEmbedding {
 public:
  explicit OptEmbedding(WeightLoader& loader);
  void forward(Exec& exec, const Batch& batch, Tensor x) const;  // x: [n, hidden]
  const Tensor& token_table() const { return tokens_.table(); }

 private:
  VocabParallelEmbedding tokens_;
  Table positions_;  // whole on each rank; row p is position p, since conversion drops the two unused rows
  std::optional<Linear> project_in_;
};

// A layer in two halves, which run in this order. They work on the workspace's x, the residual stream, and y.
class OptLayer {
 public:
  // `kv`: this layer's part of the cache, which must outlive the layer.
  OptLayer(WeightLoader& loader, int64_t index, backend::KvLayer kv);
  // With norms before the blocks, y is the attention norm of x on entry and the ffn norm of the new x on return. With
  // norms after the blocks, y is the stream on return, and x is undefined.
  void attend(Exec& exec, const Batch& batch) const;
  // With norms before the blocks, y is on return the norm of the new x that `next` computes. Without `next`, x is the
  // stream on return; that is so with norms after the blocks, and may be so for the last layer.
  void feed(Exec& exec, const Batch& batch, const LayerNorm* next) const;
  const LayerNorm& attention_norm() const { return attention_norm_; }

 private:
  bool norm_before_;
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
  bool norm_before_;
  OptEmbedding embedding_;
  std::vector<OptLayer> layers_;
  std::optional<LayerNorm> final_norm_;  // absent if norms come after the blocks, or if the model is without it
  LogitsHead head_;
};

}  // namespace optserve::engine
