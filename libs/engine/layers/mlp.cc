#include "engine/layers/mlp.h"

#include "engine/workspace.h"

namespace optserve::engine {

namespace {

backend::Activation activation_of(const model_spec::OptConfig& config) {
  return config.activation == model_spec::Activation::kGelu ? backend::Activation::kGelu : backend::Activation::kRelu;
}

}  // namespace

Mlp::Mlp(WeightLoader& loader, int64_t layer)
    : up_(loader, model_spec::layer_tensor_name(layer, "ffn.up"), activation_of(loader.config())),
      down_(loader, model_spec::layer_tensor_name(layer, "ffn.down")) {
  if (loader.config().activation != model_spec::Activation::kRelu) return;
  down_.prepare_sparse_input(loader.backend());  // most outputs of a trained model's ReLU are zeros
}

void Mlp::forward_part(Exec& exec, Tensor x, Tensor out) const {
  const Tensor inner = exec.workspace.ffn(x.dim(0));  // [n, ffn / world]
  up_.forward(exec, x, inner);
  down_.forward_part(exec, inner, out);
}

}  // namespace optserve::engine
