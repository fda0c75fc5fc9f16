#include "engine/layers/logits_head.h"

#include "engine/workspace.h"

namespace optserve::engine {

LogitsHead::LogitsHead(WeightLoader& loader, const Tensor& token_table) {
  if (loader.config().has_projections()) project_out_.emplace(loader, "project_out");
  if (!loader.config().tied_output) {
    weight_ = loader.matrix("output_projection.weight");
    return;
  }
  weight_ = loader.backend().weight_of_table(token_table);
  if (weight_.empty()) weight_ = loader.matrix("embed_tokens.weight");
}

Tensor LogitsHead::forward(Exec& exec, Tensor hidden, Tensor rows) const {
  const Workspace& workspace = exec.workspace;
  const int64_t count = rows.empty() ? hidden.dim(0) : rows.dim(0);
  Tensor x = hidden;
  if (!rows.empty()) {
    x = workspace.head_hidden(count);
    exec.backend.gather_rows(hidden, rows, x);
  }
  if (project_out_) {
    const Tensor projected = workspace.head_embedded(count);
    project_out_->forward(exec, x, projected);
    x = projected;
  }
  const Tensor local = workspace.local_logits(count);
  exec.backend.linear(x, weight_, {}, backend::Activation::kNone, local);
  const Tensor logits = workspace.logits(count);
  if (exec.communicator.world() == 1) return logits;  // the same memory
  const Tensor gathered = workspace.gathered_logits(count);
  exec.communicator.all_gather(local, gathered);
  exec.backend.interleave_ranks(gathered, logits);
  return logits;
}

}  // namespace optserve::engine
