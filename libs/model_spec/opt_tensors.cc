#include "model_spec/opt_tensors.h"

#include "base/check.h"

namespace optserve::model_spec {
namespace {

class Table {
 public:
  void matrix(std::string name, int64_t rows, int64_t cols, Split split, bool quantisable = false) {
    list_.push_back({std::move(name), rows, cols, true, split, quantisable});
  }
  void vector(std::string name, int64_t rows, Split split = Split::kReplicated) {
    list_.push_back({std::move(name), rows, 1, false, split, false});
  }
  void norm(const std::string& name, int64_t width) {
    vector(name + ".weight", width);
    vector(name + ".bias", width);
  }
  std::vector<TensorSpec> take() { return std::move(list_); }

 private:
  std::vector<TensorSpec> list_;
};

void add_layer(Table& table, const OptConfig& config, int64_t layer) {
  const int64_t h = config.hidden;
  const auto name = [layer](std::string_view leaf) { return layer_tensor_name(layer, leaf); };
  table.norm(name("attention_norm"), h);
  table.matrix(name("attention.qkv.weight"), 3 * h, h, Split::kQkvRows, true);
  table.vector(name("attention.qkv.bias"), 3 * h, Split::kQkvRows);
  table.matrix(name("attention.out.weight"), h, h, Split::kColumns, true);
  table.vector(name("attention.out.bias"), h);
  table.norm(name("ffn_norm"), h);
  table.matrix(name("ffn.up.weight"), config.ffn, h, Split::kRows, true);
  table.vector(name("ffn.up.bias"), config.ffn, Split::kRows);
  table.matrix(name("ffn.down.weight"), h, config.ffn, Split::kColumns, true);
  table.vector(name("ffn.down.bias"), h);
}

}  // namespace

std::vector<TensorSpec> opt_tensors(const OptConfig& config) {
  Table table;
  table.matrix("embed_tokens.weight", config.vocab, config.embed_dim, Split::kRows);
  table.matrix("embed_positions.weight", config.max_positions, config.hidden, Split::kReplicated);
  if (config.has_projections()) {
    table.matrix("project_in.weight", config.hidden, config.embed_dim, Split::kReplicated);
    table.matrix("project_out.weight", config.embed_dim, config.hidden, Split::kReplicated);
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) add_layer(table, config, layer);
  if (config.has_final_norm()) table.norm("final_norm", config.hidden);
  if (!config.tied_output) table.matrix("output_projection.weight", config.vocab, config.embed_dim, Split::kRows);
  return table.take();
}

std::string layer_tensor_name(int64_t layer, std::string_view leaf) {
  return "layers." + std::to_string(layer) + "." + std::string(leaf);
}

int64_t Block::row_count() const {
  int64_t count = 0;
  for (const RowRange& range : rows) count += range.count;
  return count;
}

Block block_of(const TensorSpec& spec, int64_t rank, int64_t world) {
  check(rank >= 0 && rank < world, "block_of: rank outside world");
  switch (spec.split) {
    case Split::kReplicated:
      return {{{0, spec.rows}}, 0, spec.cols};
    case Split::kRows: {
      check_eq(spec.rows % world, 0, "block_of: rows do not divide: " + spec.name);
      const int64_t share = spec.rows / world;
      return {{{rank * share, share}}, 0, spec.cols};
    }
    case Split::kColumns: {
      check_eq(spec.cols % world, 0, "block_of: columns do not divide: " + spec.name);
      const int64_t share = spec.cols / world;
      return {{{0, spec.rows}}, rank * share, share};
    }
    case Split::kQkvRows: {
      check_eq(spec.rows % (3 * world), 0, "block_of: q, k, v rows do not divide: " + spec.name);
      const int64_t group = spec.rows / 3;
      const int64_t share = group / world;
      return {{{rank * share, share}, {group + rank * share, share}, {2 * group + rank * share, share}}, 0, spec.cols};
    }
  }
  check_failed("block_of: invalid split", std::source_location::current());
}

std::vector<int64_t> block_shape(const TensorSpec& spec, int64_t world) {
  const Block block = block_of(spec, 0, world);
  if (!spec.is_matrix) return {block.row_count()};
  return {block.row_count(), block.cols};
}

}  // namespace optserve::model_spec
