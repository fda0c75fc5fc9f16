#include "kernels/elementwise.h"

#include "backend/cuda/cuda_backend.h"

namespace optserve::backend {

using cuda::expect;

namespace {

// Rows and width are those of `x`.
void add_and_norm(const char* operation, const Tensor& x, kernels::NormArgs args, cudaStream_t stream) {
  args.num_rows = x.dim(0);
  args.width = x.dim(1);
  expect(kernels::add_and_norm(args, stream), operation);
}

}  // namespace

void CudaBackend::do_embed(const StepEntry& entry, const Tensor& table, int64_t first_id, const Tensor& position_table,
                           Tensor out) {
  kernels::EmbedArgs args{.element = element(),
                          .ids = entry.ids.data<int32_t>(),
                          .positions = entry.positions.data<int32_t>(),
                          .table = table.raw(),
                          .first_id = first_id,
                          .table_rows = table.dim(0),
                          .position_table = position_table.raw(),
                          .num_rows = out.dim(0),
                          .width = out.dim(1),
                          .out = out.raw()};
  if (!entry.new_ids.empty()) {
    args.new_ids = entry.new_ids.data<int32_t>();
    args.slots = entry.slots.data<int32_t>();
    args.history = entry.history.data<int32_t>();
    args.history_stride = entry.history.row_stride();
  }
  if (!entry.table_updates.empty()) {
    args.updates = entry.table_updates.data<int32_t>();
    args.num_updates = entry.table_updates.dim(0);
    args.block_table = entry.block_table.data<int32_t>();
    args.table_stride = entry.block_table.row_stride();
  }
  is_table_settled_ = false;
  expect(kernels::embed(args, stream_), "embed");
}

void CudaBackend::do_add_positions(const Tensor& positions, const Tensor& table, Tensor x) {
  expect(kernels::add_positions({.element = element(),
                                 .positions = positions.data<int32_t>(),
                                 .table = table.raw(),
                                 .num_rows = x.dim(0),
                                 .width = x.dim(1),
                                 .x = x.raw()},
                                stream_),
         "add_positions");
}

void CudaBackend::do_layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) {
  add_and_norm("layer_norm", x,
               {.element = element(), .residual = x.raw(), .gamma = gamma.raw(), .beta = beta.raw(), .out = out.raw()},
               stream_);
  is_table_settled_ = x.dim(0) > 0;
  first_keys_ = nullptr;
}

void CudaBackend::do_add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) {
  add_and_norm("add_bias_residual", x,
               {.element = element(), .x = x.raw(), .bias = bias.raw(), .residual = residual.raw()}, stream_);
}

void CudaBackend::do_add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                            const Tensor& beta, Tensor out) {
  add_and_norm("add_bias_residual_norm", x,
               {.element = element(),
                .x = x.raw(),
                .bias = bias.raw(),
                .residual = residual.raw(),
                .gamma = gamma.raw(),
                .beta = beta.raw(),
                .out = out.raw()},
               stream_);
}

void CudaBackend::do_gather_rows(const Tensor& x, const Tensor& rows, Tensor out) {
  const auto element_bytes = static_cast<int64_t>(dtype_bytes(compute_dtype_));
  expect(kernels::gather_rows({.x = x.raw(),
                               .x_stride_bytes = x.row_stride() * element_bytes,
                               .rows = rows.data<int32_t>(),
                               .num_rows = rows.dim(0),
                               .row_bytes = x.dim(1) * element_bytes,
                               .out = out.raw()},
                              stream_),
         "gather_rows");
}

void CudaBackend::do_interleave_ranks(const Tensor& in, Tensor out) {
  expect(kernels::interleave_ranks(in.raw(), in.dim(0), in.dim(1),
                                   in.dim(2) * static_cast<int64_t>(dtype_bytes(in.dtype())), out.raw(), stream_),
         "interleave_ranks");
}

}  // namespace optserve::backend
