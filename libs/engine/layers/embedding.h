// The embedding of tokens, with the table split by rows over the ranks.
#pragma once

#include "engine/weight_loader.h"
#include "engine/workspace.h"

namespace optserve::engine {

class VocabParallelEmbedding {
 public:
  explicit VocabParallelEmbedding(WeightLoader& loader)
      : table_(loader.table("embed_tokens.weight")), first_id_(table_.view.dim(0) * loader.rank()) {}
  const Tensor& table() const { return table_.view; }
  // Writes [n, embed]. Ids of other ranks give zeros, and rank 0 adds the positions unless `position_table` is empty,
  // so that the sum over the ranks is the embedding.
  void forward(Exec& exec, const backend::StepEntry& entry, const Tensor& position_table, Tensor out) const {
    exec.backend.embed(entry, table_.view, first_id_, exec.communicator.rank() == 0 ? position_table : Tensor(), out);
    exec.communicator.all_reduce_sum(out);
  }

 private:
  Table table_;
  int64_t first_id_;
};

}  // namespace optserve::engine
