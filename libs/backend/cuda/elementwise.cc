#include "kernels/elementwise.h"

#include "backend/cuda/cuda_backend.h"
#include "tensor/shape_check.h"

namespace optserve {

using cuda::expect;

namespace {

// Rows and width are those that `shapes` has found.
void add_and_norm(const char* operation, const ShapeCheck& shapes, kernels::NormArgs args, cudaStream_t stream) {
  args.num_rows = shapes["num_tokens"];
  args.width = shapes["hidden"];
  expect(kernels::add_and_norm(args, stream), operation);
}

}  // namespace

void CudaBackend::take_ids(const Tensor& new_ids, const Tensor& slots, const Tensor& positions, Tensor history,
                           Tensor ids) {
  ShapeCheck shapes("take_ids");
  shapes.expect("new_ids", new_ids, DType::kI32, {"num_tokens"});
  shapes.expect("slots", slots, DType::kI32, {"num_tokens"});
  shapes.expect("positions", positions, DType::kI32, {"num_tokens"});
  shapes.expect("history", history, DType::kI32, {"slots", "max_tokens"});
  shapes.expect("ids", ids, DType::kI32, {"num_tokens"});
  expect(kernels::take_ids({.new_ids = new_ids.data<int32_t>(),
                            .slots = slots.data<int32_t>(),
                            .positions = positions.data<int32_t>(),
                            .num_rows = shapes["num_tokens"],
                            .history = history.data<int32_t>(),
                            .history_stride = history.row_stride(),
                            .ids = ids.data<int32_t>()},
                           stream_),
         "take_ids");
}

void CudaBackend::update_table(const Tensor& updates, Tensor table) {
  ShapeCheck shapes("update_table");
  shapes.bind("3", 3);
  shapes.expect_contiguous("updates", updates, DType::kI32, {"n", "3"});
  shapes.expect("table", table, DType::kI32, {"rows", "columns"});
  expect(
      kernels::update_table(updates.data<int32_t>(), shapes["n"], table.data<int32_t>(), table.row_stride(), stream_),
      "update_table");
}

void CudaBackend::embed_tokens(const Tensor& ids, const Tensor& table, int64_t first_id, Tensor out) {
  ShapeCheck shapes("embed_tokens");
  shapes.expect("ids", ids, DType::kI32, {"num_tokens"});
  shapes.expect_contiguous("table", table, compute_dtype_, {"local vocab", "embed"});
  shapes.expect_contiguous("out", out, compute_dtype_, {"num_tokens", "embed"});
  expect(kernels::embed({.element = element(),
                         .ids = ids.data<int32_t>(),
                         .table = table.raw(),
                         .first_id = first_id,
                         .table_rows = shapes["local vocab"],
                         .num_rows = shapes["num_tokens"],
                         .width = shapes["embed"],
                         .out = out.raw()},
                        stream_),
         "embed_tokens");
}

void CudaBackend::add_positions(const Tensor& positions, const Tensor& table, Tensor x) {
  ShapeCheck shapes("add_positions");
  shapes.expect("positions", positions, DType::kI32, {"num_tokens"});
  shapes.expect_contiguous("table", table, compute_dtype_, {"max_positions", "hidden"});
  shapes.expect_contiguous("x", x, compute_dtype_, {"num_tokens", "hidden"});
  expect(kernels::add_positions({.element = element(),
                                 .positions = positions.data<int32_t>(),
                                 .table = table.raw(),
                                 .num_rows = shapes["num_tokens"],
                                 .width = shapes["hidden"],
                                 .x = x.raw()},
                                stream_),
         "add_positions");
}

void CudaBackend::layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) {
  ShapeCheck shapes("layer_norm");
  shapes.expect_contiguous("x", x, compute_dtype_, {"num_tokens", "hidden"});
  shapes.expect("gamma", gamma, compute_dtype_, {"hidden"});
  shapes.expect("beta", beta, compute_dtype_, {"hidden"});
  shapes.expect_contiguous("out", out, compute_dtype_, {"num_tokens", "hidden"});
  add_and_norm("layer_norm", shapes,
               {.element = element(), .residual = x.raw(), .gamma = gamma.raw(), .beta = beta.raw(), .out = out.raw()},
               stream_);
}

void CudaBackend::add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) {
  ShapeCheck shapes("add_bias_residual");
  shapes.expect_contiguous("x", x, compute_dtype_, {"num_tokens", "hidden"});
  if (!bias.empty()) shapes.expect("bias", bias, compute_dtype_, {"hidden"});
  shapes.expect_contiguous("residual", residual, compute_dtype_, {"num_tokens", "hidden"});
  add_and_norm("add_bias_residual", shapes,
               {.element = element(), .x = x.raw(), .bias = bias.raw(), .residual = residual.raw()}, stream_);
}

void CudaBackend::add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                         const Tensor& beta, Tensor out) {
  ShapeCheck shapes("add_bias_residual_norm");
  shapes.expect_contiguous("x", x, compute_dtype_, {"num_tokens", "hidden"});
  if (!bias.empty()) shapes.expect("bias", bias, compute_dtype_, {"hidden"});
  shapes.expect_contiguous("residual", residual, compute_dtype_, {"num_tokens", "hidden"});
  shapes.expect("gamma", gamma, compute_dtype_, {"hidden"});
  shapes.expect("beta", beta, compute_dtype_, {"hidden"});
  shapes.expect_contiguous("out", out, compute_dtype_, {"num_tokens", "hidden"});
  add_and_norm("add_bias_residual_norm", shapes,
               {.element = element(),
                .x = x.raw(),
                .bias = bias.raw(),
                .residual = residual.raw(),
                .gamma = gamma.raw(),
                .beta = beta.raw(),
                .out = out.raw()},
               stream_);
}

void CudaBackend::gather_rows(const Tensor& x, const Tensor& rows, Tensor out) {
  ShapeCheck shapes("gather_rows");
  shapes.expect("x", x, compute_dtype_, {"num_tokens", "hidden"});
  shapes.expect("rows", rows, DType::kI32, {"n"});
  shapes.expect_contiguous("out", out, compute_dtype_, {"n", "hidden"});
  const auto element_bytes = static_cast<int64_t>(dtype_bytes(compute_dtype_));
  expect(kernels::gather_rows({.x = x.raw(),
                               .x_stride_bytes = x.row_stride() * element_bytes,
                               .rows = rows.data<int32_t>(),
                               .num_rows = shapes["n"],
                               .row_bytes = shapes["hidden"] * element_bytes,
                               .out = out.raw()},
                              stream_),
         "gather_rows");
}

void CudaBackend::interleave_ranks(const Tensor& in, Tensor out) {
  ShapeCheck shapes("interleave_ranks");
  shapes.expect_contiguous("in", in, in.dtype(), {"world", "n", "local"});
  shapes.bind("world * local", shapes["world"] * shapes["local"]);
  shapes.expect_contiguous("out", out, in.dtype(), {"n", "world * local"});
  expect(kernels::interleave_ranks(in.raw(), shapes["world"], shapes["n"],
                                   shapes["local"] * static_cast<int64_t>(dtype_bytes(in.dtype())), out.raw(), stream_),
         "interleave_ranks");
}

}  // namespace optserve
