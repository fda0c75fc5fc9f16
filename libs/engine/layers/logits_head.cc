#include "engine/layers/logits_head.h"

#include "engine/workspace.h"

namespace optserve::engine {

LogitsHead::LogitsHead(WeightLoader& loader) {
  if (loader.config().has_projections()) project_out_.emplace(loader, "project_out");
  weight_ = loader.matrix(loader.config().tied_output ? "embed_tokens.weight" : "output_projection.weight");
}

Tensor LogitsHead::forward(Exec& exec, Tensor hidden, Tensor rows) const {
  const Workspace& workspace = exec.workspace;
  const int64_t count = rows.dim(0);
  Tensor x = workspace.head_hidden(count);
  exec.backend.gather_rows(hidden, rows, x);
  if (project_out_) {
    const Tensor projected = workspace.head_embedded(count);
    project_out_->forward(exec, x, projected);
    x = projected;
  }
  const Tensor local = workspace.local_logits(count);
  exec.backend.linear(x, weight_, {}, Activation::kNone, local);
  const Tensor logits = workspace.logits(count);
  if (exec.communicator.world() == 1) return logits;  // the same memory
  const Tensor gathered = workspace.gathered_logits(count);
  exec.communicator.all_gather(local, gathered);
  if (exec.communicator.rank() == 0) exec.backend.interleave_ranks(gathered, logits);
  return logits;
}

}  // namespace optserve::engine
