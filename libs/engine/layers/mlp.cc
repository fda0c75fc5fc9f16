#include "engine/layers/mlp.h"

#include "engine/workspace.h"

namespace optserve::engine {

Mlp::Mlp(WeightLoader& loader, int64_t layer)
    : up_(loader, model_spec::layer_tensor_name(layer, "ffn.up"), Activation::kRelu),
      down_(loader, model_spec::layer_tensor_name(layer, "ffn.down")) {
  down_.prepare_sparse_input(loader.backend());  // most of what a ReLU of a trained model gives is zero
}

void Mlp::forward_without_bias(Exec& exec, Tensor x, Tensor out) const {
  const Tensor inner = exec.workspace.ffn(x.dim(0));  // [n, ffn / world]
  up_.forward(exec, x, inner);
  down_.forward_without_bias(exec, inner, out);
}

}  // namespace optserve::engine
