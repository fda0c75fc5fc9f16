// What every backend checks of an operation's arguments. The sizes that the checks leave open are those of the tensors.
#include "backend/backend.h"

#include <algorithm>

#include "base/limits.h"
#include "tensor/shape_check.h"

namespace optserve::backend {

void Backend::copy(const Tensor& source, Tensor destination) {
  if (source.dtype() != destination.dtype() || !std::ranges::equal(source.shape(), destination.shape())) {
    check_failed("copy: " + source.describe() + " to " + destination.describe(), std::source_location::current());
  }
  if (source.numel() != 0) do_copy(source, destination);
}

void Backend::embed(const StepEntry& entry, const Tensor& table, int64_t first_id, const Tensor& position_table,
                    Tensor out) {
  ShapeCheck shapes("embed");
  shapes.expect("ids", entry.ids, DType::kI32, {"num_tokens"});
  shapes.expect("positions", entry.positions, DType::kI32, {"num_tokens"});
  shapes.expect_contiguous("table", table, compute_dtype(), {"local vocab", "embed"});
  shapes.expect_contiguous("out", out, compute_dtype(), {"num_tokens", "embed"});
  if (!position_table.empty()) {
    shapes.expect_contiguous("position_table", position_table, compute_dtype(), {"max_positions", "embed"});
  }
  if (!entry.new_ids.empty()) {
    shapes.expect("new_ids", entry.new_ids, DType::kI32, {"num_tokens"});
    shapes.expect("slots", entry.slots, DType::kI32, {"num_tokens"});
    shapes.expect("history", entry.history, DType::kI32, {"slots", "max_tokens"});
  }
  if (!entry.table_updates.empty()) {
    shapes.bind("3", 3);
    shapes.expect_contiguous("table_updates", entry.table_updates, DType::kI32, {"n", "3"});
    shapes.expect("block_table", entry.block_table, DType::kI32, {"rows", "columns"});
  }
  do_embed(entry, table, first_id, position_table, out);
}

void Backend::add_positions(const Tensor& positions, const Tensor& table, Tensor x) {
  ShapeCheck shapes("add_positions");
  shapes.expect("positions", positions, DType::kI32, {"num_tokens"});
  shapes.expect_contiguous("table", table, compute_dtype(), {"max_positions", "hidden"});
  shapes.expect_contiguous("x", x, compute_dtype(), {"num_tokens", "hidden"});
  do_add_positions(positions, table, x);
}

void Backend::layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) {
  ShapeCheck shapes("layer_norm");
  shapes.expect_contiguous("x", x, compute_dtype(), {"num_tokens", "hidden"});
  shapes.expect("gamma", gamma, compute_dtype(), {"hidden"});
  shapes.expect("beta", beta, compute_dtype(), {"hidden"});
  shapes.expect_contiguous("out", out, compute_dtype(), {"num_tokens", "hidden"});
  do_layer_norm(x, gamma, beta, out);
}

void Backend::add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) {
  ShapeCheck shapes("add_bias_residual");
  shapes.expect_contiguous("x", x, compute_dtype(), {"num_tokens", "hidden"});
  if (!bias.empty()) shapes.expect("bias", bias, compute_dtype(), {"hidden"});
  shapes.expect_contiguous("residual", residual, compute_dtype(), {"num_tokens", "hidden"});
  do_add_bias_residual(x, bias, residual);
}

void Backend::add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                     const Tensor& beta, Tensor out) {
  ShapeCheck shapes("add_bias_residual_norm");
  shapes.expect_contiguous("x", x, compute_dtype(), {"num_tokens", "hidden"});
  if (!bias.empty()) shapes.expect("bias", bias, compute_dtype(), {"hidden"});
  shapes.expect_contiguous("residual", residual, compute_dtype(), {"num_tokens", "hidden"});
  shapes.expect("gamma", gamma, compute_dtype(), {"hidden"});
  shapes.expect("beta", beta, compute_dtype(), {"hidden"});
  shapes.expect_contiguous("out", out, compute_dtype(), {"num_tokens", "hidden"});
  do_add_bias_residual_norm(x, bias, residual, gamma, beta, out);
}

void Backend::linear(const Tensor& x, const quant::Weight& weight, const Tensor& bias, Activation activation,
                     Tensor out) {
  ShapeCheck shapes("linear");
  shapes.bind("in", weight.in).bind("out", weight.out);
  shapes.expect("x", x, compute_dtype(), {"num_tokens", "in"});
  shapes.expect("out", out, out.dtype() == DType::kF32 ? DType::kF32 : compute_dtype(), {"num_tokens", "out"});
  if (!bias.empty()) shapes.expect("bias", bias, compute_dtype(), {"out"});
  do_linear(x, weight, bias, activation, out);
}

void Backend::attention(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer, Tensor out) {
  ShapeCheck shapes("attention");
  shapes.bind("num_sequences", batch.num_sequences).bind("2", 2);
  const DType cells = layer.is_int8() ? DType::kI8 : compute_dtype();
  shapes.expect_contiguous("keys", layer.keys, cells, {"num_blocks", "heads", "block_tokens", "head_dim"});
  shapes.expect_contiguous("values", layer.values, cells, {"num_blocks", "heads", "block_tokens", "head_dim"});
  if (layer.is_int8()) {
    shapes.expect_contiguous("key_scales", layer.key_scales, DType::kF32, {"num_blocks", "heads", "block_tokens"});
    shapes.expect_contiguous("value_scales", layer.value_scales, DType::kF32, {"num_blocks", "heads", "block_tokens"});
  }
  shapes.bind("heads * head_dim", shapes["heads"] * shapes["head_dim"]);
  shapes.bind("3 * heads * head_dim", 3 * shapes["heads"] * shapes["head_dim"]);
  shapes.bind("num_sequences + 1", batch.num_sequences + 1);
  shapes.expect_contiguous("qkv", qkv, compute_dtype(), {"num_tokens", "3 * heads * head_dim"});
  shapes.expect_contiguous("out", out, compute_dtype(), {"num_tokens", "heads * head_dim"});
  shapes.expect("row_begin", batch.row_begin, DType::kI32, {"num_sequences + 1"});
  shapes.expect("context", batch.context, DType::kI32, {"num_sequences"});
  shapes.expect("table_rows", batch.table_rows, DType::kI32, {"num_sequences"});
  shapes.expect("block_table", batch.block_table, DType::kI32, {"slots", "max_blocks"});
  shapes.expect("kv_slots", batch.kv_slots, DType::kI32, {"num_tokens"});
  shapes.expect_contiguous("tiles", batch.tiles, DType::kI32, {"num_tiles", "2"});
  check(shapes["head_dim"] <= kHeadDimMax, "attention: head_dim above 256");
  do_attention(qkv, batch, layer, out);
}

void Backend::gather_rows(const Tensor& x, const Tensor& rows, Tensor out) {
  ShapeCheck shapes("gather_rows");
  shapes.expect("x", x, compute_dtype(), {"num_tokens", "hidden"});
  shapes.expect("rows", rows, DType::kI32, {"n"});
  shapes.expect_contiguous("out", out, compute_dtype(), {"n", "hidden"});
  do_gather_rows(x, rows, out);
}

void Backend::interleave_ranks(const Tensor& in, Tensor out) {
  ShapeCheck shapes("interleave_ranks");
  shapes.expect_contiguous("in", in, in.dtype(), {"world", "n", "local"});
  shapes.bind("world * local", shapes["world"] * shapes["local"]);
  shapes.expect_contiguous("out", out, in.dtype(), {"n", "world * local"});
  do_interleave_ranks(in, out);
}

void Backend::sample(const Tensor& logits, const SampleBatch& batch, const SampleOutputs& out) {
  ShapeCheck shapes("sample");
  shapes.bind("row bytes", sizeof(sampling::PackedSampleRow)).bind("best", limits::kTopLogprobsMax);
  shapes.bind("rule words", limits::kTokenRulesWordsMax);
  shapes.expect_contiguous("rows", batch.rows, DType::kU8, {"n", "row bytes"});
  shapes.expect_contiguous("logits", logits, DType::kF32, {"n", "vocab"});
  shapes.expect("history", batch.history, DType::kI32, {"slots", "max_tokens"});
  shapes.expect("ids", out.ids, DType::kI32, {"n"});
  shapes.expect("logprobs", out.logprobs, DType::kF32, {"n"});
  if ((batch.features & sampling::kSampleRules) != 0) {
    shapes.expect("rules", batch.rules, DType::kI32, {"slots", "rule words"});
  }
  if ((batch.features & sampling::kSampleLogprobs) != 0) {
    shapes.expect_contiguous("best ids", out.best_ids, DType::kI32, {"n", "best"});
    shapes.expect_contiguous("best logprobs", out.best_logprobs, DType::kF32, {"n", "best"});
  }
  check(batch.vocab_real >= 0 && batch.vocab_real <= shapes["vocab"], "sample: more real ids than logits");
  do_sample(logits, batch, out);
}

void Backend::token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out,
                             const BestIds& best) {
  ShapeCheck shapes("token_logprobs");
  shapes.expect_contiguous("logits", logits, DType::kF32, {"n", "vocab"});
  shapes.expect("targets", targets, DType::kI32, {"n"});
  shapes.expect("out", out, DType::kF32, {"n"});
  check(vocab_real >= 0 && vocab_real <= shapes["vocab"], "token_logprobs: more real ids than logits");
  check(best.count >= 0 && best.count <= limits::kTopLogprobsMax, "token_logprobs: number of best ids");
  if (best.count > 0) {
    shapes.bind("best", limits::kTopLogprobsMax);
    shapes.expect_contiguous("best ids", best.ids, DType::kI32, {"n", "best"});
    shapes.expect_contiguous("best logprobs", best.logprobs, DType::kF32, {"n", "best"});
  }
  do_token_logprobs(logits, targets, vocab_real, out, best);
}

}  // namespace optserve::backend
