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

void CudaBackend::embed(const StepEntry& entry, const Tensor& table, int64_t first_id, const Tensor& position_table,
                        Tensor out) {
  ShapeCheck shapes("embed");
  shapes.expect("ids", entry.ids, DType::kI32, {"num_tokens"});
  shapes.expect("positions", entry.positions, DType::kI32, {"num_tokens"});
  shapes.expect_contiguous("table", table, compute_dtype_, {"local vocab", "embed"});
  shapes.expect_contiguous("out", out, compute_dtype_, {"num_tokens", "embed"});
  kernels::EmbedArgs args{.element = element(),
                          .ids = entry.ids.data<int32_t>(),
                          .positions = entry.positions.data<int32_t>(),
                          .table = table.raw(),
                          .first_id = first_id,
                          .table_rows = shapes["local vocab"],
                          .num_rows = shapes["num_tokens"],
                          .width = shapes["embed"],
                          .out = out.raw()};
  if (!position_table.empty()) {
    shapes.expect_contiguous("position_table", position_table, compute_dtype_, {"max_positions", "embed"});
    args.position_table = position_table.raw();
  }
  if (!entry.new_ids.empty()) {
    shapes.expect("new_ids", entry.new_ids, DType::kI32, {"num_tokens"});
    shapes.expect("slots", entry.slots, DType::kI32, {"num_tokens"});
    shapes.expect("history", entry.history, DType::kI32, {"slots", "max_tokens"});
    args.new_ids = entry.new_ids.data<int32_t>();
    args.slots = entry.slots.data<int32_t>();
    args.history = entry.history.data<int32_t>();
    args.history_stride = entry.history.row_stride();
  }
  if (!entry.table_updates.empty()) {
    shapes.bind("3", 3);
    shapes.expect_contiguous("table_updates", entry.table_updates, DType::kI32, {"updates", "3"});
    shapes.expect("block_table", entry.block_table, DType::kI32, {"rows", "columns"});
    args.updates = entry.table_updates.data<int32_t>();
    args.num_updates = shapes["updates"];
    args.block_table = entry.block_table.data<int32_t>();
    args.table_stride = entry.block_table.row_stride();
  }
  is_table_settled_ = false;
  expect(kernels::embed(args, stream_), "embed");
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
  is_table_settled_ = shapes["num_tokens"] > 0;
  first_keys_ = nullptr;
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
