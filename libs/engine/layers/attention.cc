#include "engine/layers/attention.h"

#include "engine/workspace.h"

namespace optserve::engine {

Attention::Attention(WeightLoader& loader, int64_t layer, backend::KvLayer kv)
    : qkv_(loader, model_spec::layer_tensor_name(layer, "attention.qkv")),
      out_(loader, model_spec::layer_tensor_name(layer, "attention.out")),
      kv_(kv) {}

void Attention::forward_part(Exec& exec, const Batch& batch, Tensor x, Tensor out) const {
  const Tensor qkv = exec.workspace.qkv(batch.num_tokens);      // [n, 3 * heads * head_dim]
  const Tensor heads = exec.workspace.heads(batch.num_tokens);  // [n, heads * head_dim]
  qkv_.forward(exec, x, qkv);
  exec.backend.attention(qkv, batch.attention, kv_, heads);
  out_.forward_part(exec, heads, out);
}

}  // namespace optserve::engine
