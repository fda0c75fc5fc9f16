// The memory for the intermediate results of a step, allocated once for the largest step. A view of its first n rows is
// valid until the next step.
#pragma once

#include "backend/backend.h"
#include "comm/communicator.h"
#include "model_spec/opt_config.h"

namespace optserve::engine {

struct WorkspaceSizes {
  int64_t rows_max = 0;  // most tokens of a step
  int64_t hidden = 0;
  int64_t embed = 0;      // width of the token table
  int64_t qkv = 0;        // of this rank
  int64_t heads_out = 0;  // heads * head_dim of this rank
  int64_t ffn = 0;        // of this rank
  int64_t vocab_local = 0;
  int64_t world = 1;
  int64_t logit_rows_max = 0;  // most rows whose logits are computed at a time

  uint64_t bytes(size_t element_bytes) const;  // of the whole workspace
};

// The widths of one rank's part of a model that `world` ranks share. The numbers of rows are left at 0.
WorkspaceSizes workspace_widths(const model_spec::OptConfig& config, int64_t world);

struct Workspace {
  Workspace(backend::Backend& backend, const WorkspaceSizes& sizes);

  // Activations in the compute type, [rows, width].
  Tensor x(int64_t rows) const { return view(x_, rows, sizes.hidden); }  // residual stream
  Tensor y(int64_t rows) const { return view(y_, rows, sizes.hidden); }  // its norm, or the stream after one
  // What a block adds to the stream, before its bias.
  Tensor partial(int64_t rows) const { return view(partial_, rows, sizes.hidden); }
  Tensor embedded(int64_t rows) const { return view(embedded_, rows, sizes.embed); }
  Tensor qkv(int64_t rows) const { return view(qkv_, rows, sizes.qkv); }
  Tensor heads(int64_t rows) const { return view(heads_, rows, sizes.heads_out); }
  Tensor ffn(int64_t rows) const { return view(ffn_, rows, sizes.ffn); }
  // The rows whose logits are wanted.
  Tensor head_hidden(int64_t rows) const { return view(head_hidden_, rows, sizes.hidden); }
  Tensor head_embedded(int64_t rows) const { return view(head_embedded_, rows, sizes.embed); }
  // In this order: F32[rows, vocab_local], F32[world, rows, vocab_local], F32[rows, vocab].
  Tensor local_logits(int64_t rows) const;
  Tensor gathered_logits(int64_t rows) const;
  Tensor logits(int64_t rows) const;

  WorkspaceSizes sizes;

 private:
  Tensor view(const Buffer& buffer, int64_t rows, int64_t width) const {
    return buffer.view(compute_dtype_, {rows, width});
  }

  DType compute_dtype_;
  Buffer x_, y_, partial_, embedded_, qkv_, heads_, ffn_, head_hidden_, head_embedded_;
  Buffer local_logits_, gathered_logits_, logits_;
};

// What a layer needs to run. It is handed to every call, so that nothing is global.
struct Exec {
  backend::Backend& backend;
  comm::Communicator& communicator;
  Workspace& workspace;
};

}  // namespace optserve::engine
