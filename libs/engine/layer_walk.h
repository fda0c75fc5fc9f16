// The forward pass of short texts in the memory of one layer: the weights of a layer are loaded, used for every text
// and freed before those of the next one are loaded. It runs the same operations as the engine in the same order, so
// that the logits have the same bits. It is meant for examining a model, not for serving it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "comm/communicator.h"
#include "engine/weight_loader.h"
#include "engine/workspace.h"

namespace optserve::engine {

struct Batch;
class KvCache;
class LayerNorm;
class OptLayer;

// The large matrices of a layer, whose inputs a Watch sees.
enum class LayerInput : uint8_t { kQkv, kOut, kUp, kDown };

class LayerWalk {
 public:
  // `x`: the input of the matrix, [num_tokens, in], for one text; valid during the call.
  using Watch = std::function<void(LayerInput input, const Tensor& x)>;

  // Embeds the texts, each of 1 to max_positions ids. `source` and `backend` must outlive the walk.
  LayerWalk(const WeightSource& source, backend::Backend& backend, const std::vector<std::vector<TokenId>>& texts);
  ~LayerWalk();

  int64_t layer() const { return layer_; }  // the layer that runs next; num_layers at the end
  bool at_end() const { return layer_ == loader_.config().num_layers; }
  // Runs the next layer over all texts; there must be one.
  void next_layer(const Watch& watch = {});
  // At the end: the logits of every row of a text, F32[num_tokens, vocab], on the host.
  std::vector<float> logits(size_t text);

 private:
  struct Text;  // the arrays of its step, and its activations between two layers

  void run_layer(const OptLayer& layer, const LayerNorm* next, const Batch& batch, const Watch& watch);

  WeightLoader loader_;
  backend::Backend& backend_;
  std::unique_ptr<comm::Communicator> communicator_;
  std::vector<std::unique_ptr<Text>> texts_;
  std::unique_ptr<KvCache> cache_;  // of one layer and the longest text
  std::unique_ptr<Workspace> workspace_;
  int64_t layer_ = 0;
};

}  // namespace optserve::engine
