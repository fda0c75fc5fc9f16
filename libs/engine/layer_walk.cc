#include "engine/layer_walk.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "base/check.h"
#include "base/limits.h"
#include "engine/batch.h"
#include "engine/kv_cache.h"
#include "engine/models/opt.h"

namespace optserve::engine {
namespace {

using limits::kKvBlockTokens;

constexpr int64_t kLogitRows = 64;  // of one product

int64_t blocks_of(int64_t tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens; }

std::vector<int32_t> count_up(int64_t count) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

WorkspaceSizes sizes_of(const model_spec::OptConfig& config, int64_t rows) {
  WorkspaceSizes sizes = workspace_widths(config, 1);
  sizes.rows_max = rows;
  sizes.logit_rows_max = std::min(rows, kLogitRows);
  return sizes;
}

}  // namespace

struct LayerWalk::Text {
  Text(backend::Backend& backend, const std::vector<TokenId>& ids, int64_t hidden) : backend_(backend) {
    const auto tokens = static_cast<int32_t>(ids.size());
    batch.num_tokens = tokens;
    batch.entry.ids = upload(ids);
    batch.entry.positions = upload(count_up(tokens));
    backend::AttentionBatch& attention = batch.attention;
    attention.num_sequences = 1;
    attention.num_decodes = tokens == 1 ? 1 : 0;
    attention.row_begin = upload({0, tokens});
    attention.context = upload({tokens});
    attention.table_rows = upload({0});
    attention.block_table = upload(count_up(blocks_of(tokens))).reshape({1, blocks_of(tokens)});
    attention.kv_slots = upload(count_up(tokens));
    std::vector<int32_t> tiles;
    for (int32_t first = 0; first < tokens && tokens > 1; first += backend::kAttentionTileRows) {
      tiles.insert(tiles.end(), {0, first});
    }
    attention.tiles = upload(tiles).reshape({static_cast<int64_t>(tiles.size() / 2), 2});
    x = activations(tokens, hidden);
    y = activations(tokens, hidden);
  }

  Batch batch;
  Tensor x, y;  // [num_tokens, hidden]

 private:
  Tensor upload(const std::vector<int32_t>& values) {
    buffers_.push_back(backend_.allocate(values.size() * sizeof(int32_t)));
    const Tensor view = buffers_.back().view(DType::kI32, {static_cast<int64_t>(values.size())});
    backend_.upload(view, values.data());
    backend_.synchronize();  // `values` must live until they are copied
    return view;
  }
  Tensor activations(int64_t rows, int64_t width) {
    const DType dtype = backend_.compute_dtype();
    buffers_.push_back(backend_.allocate(static_cast<size_t>(rows * width) * dtype_bytes(dtype)));
    return buffers_.back().view(dtype, {rows, width});
  }

  backend::Backend& backend_;
  std::vector<Buffer> buffers_;
};

LayerWalk::LayerWalk(const WeightSource& source, backend::Backend& backend,
                     const std::vector<std::vector<TokenId>>& texts)
    : loader_(source, backend, 0, 1, {}), backend_(backend), communicator_(comm::make_solo_communicator()) {
  const model_spec::OptConfig& config = source.config();
  int64_t longest = 1;
  for (const std::vector<TokenId>& ids : texts) {
    const auto tokens = static_cast<int64_t>(ids.size());
    check(tokens >= 1 && tokens <= config.max_positions, "LayerWalk: tokens of a text");
    check(std::ranges::all_of(ids, [&](TokenId id) { return id >= 0 && id < config.vocab; }), "LayerWalk: ids");
    texts_.push_back(std::make_unique<Text>(backend, ids, config.hidden));
    longest = std::max(longest, tokens);
  }
  model_spec::OptConfig one_layer = config;
  one_layer.num_layers = 1;
  cache_ = std::make_unique<KvCache>(backend, one_layer, backend.compute_dtype(), blocks_of(longest), 1);
  workspace_ = std::make_unique<Workspace>(backend, sizes_of(config, longest));
  Exec exec{backend, *communicator_, *workspace_};
  const OptEmbedding embedding(loader_);
  for (const auto& text : texts_) embedding.forward(exec, text->batch, text->x);
}

LayerWalk::~LayerWalk() = default;

void LayerWalk::run_layer(const OptLayer& layer, const LayerNorm* next, const Batch& batch, const Watch& watch) {
  Exec exec{backend_, *communicator_, *workspace_};
  const int64_t rows = batch.num_tokens;
  const auto look = [&](LayerInput input, const Tensor& x) {
    if (watch) watch(input, x);
  };
  look(LayerInput::kQkv, loader_.config().norm_before ? workspace_->y(rows) : workspace_->x(rows));
  layer.attend(exec, batch);
  look(LayerInput::kOut, workspace_->heads(rows));
  look(LayerInput::kUp, workspace_->y(rows));
  layer.feed(exec, batch, next);
  look(LayerInput::kDown, workspace_->ffn(rows));
}

void LayerWalk::next_layer(const Watch& watch) {
  check(!at_end(), "LayerWalk: there is no further layer");
  const OptLayer layer(loader_, layer_, cache_->layer(0));
  const model_spec::OptConfig& config = loader_.config();
  const bool is_last = layer_ + 1 == config.num_layers;
  std::optional<LayerNorm> next;
  if (config.norm_before && !is_last) {
    next.emplace(loader_, model_spec::layer_tensor_name(layer_ + 1, "attention_norm"));
  }
  if (config.has_final_norm() && is_last) next.emplace(loader_, "final_norm");
  Exec exec{backend_, *communicator_, *workspace_};
  for (const auto& text : texts_) {
    const Tensor x = workspace_->x(text->batch.num_tokens), y = workspace_->y(text->batch.num_tokens);
    backend_.copy(text->x, x);
    if (config.norm_before && layer_ == 0) layer.attention_norm().forward(exec, x, y);
    if (config.norm_before && layer_ > 0) backend_.copy(text->y, y);
    run_layer(layer, next ? &*next : nullptr, text->batch, watch);
    backend_.copy(x, text->x);
    if (next) backend_.copy(y, text->y);
  }
  backend_.synchronize();
  ++layer_;
}

std::vector<float> LayerWalk::logits(size_t text) {
  check(at_end(), "LayerWalk: layers are left");
  const Text& wanted = *texts_.at(text);
  const int64_t rows = wanted.batch.num_tokens, vocab = loader_.config().vocab;
  const Tensor hidden = loader_.config().has_final_norm() ? wanted.y : wanted.x;
  const OptEmbedding embedding(loader_);
  const LogitsHead head(loader_, embedding.token_table());
  Exec exec{backend_, *communicator_, *workspace_};
  std::vector<float> values(static_cast<size_t>(rows * vocab));
  for (int64_t row = 0; row < rows; row += kLogitRows) {
    const int64_t end = std::min(rows, row + kLogitRows);
    backend_.download(values.data() + row * vocab, head.forward(exec, hidden.rows(row, end), {}));
  }
  return values;
}

}  // namespace optserve::engine
