// Token table split by rows over the ranks, and the whole position table on each.
#pragma once

#include "engine/exec.h"
#include "engine/weight_loader.h"

namespace optserve::engine {

class VocabParallelEmbedding {
 public:
  explicit VocabParallelEmbedding(WeightLoader& loader)
      : table_(loader.table("embed_tokens.weight")), first_id_(table_.view.dim(0) * loader.rank()) {}
  const Tensor& table() const { return table_.view; }
  // ids I32[n] -> [n, embed]; ids of other ranks give zeros, so the sum is the row.
  void forward(Exec& exec, Tensor ids, Tensor out) const {
    exec.backend.embed_tokens(ids, table_.view, first_id_, out);
    exec.communicator.all_reduce_sum(out);
  }

 private:
  Table table_;
  int64_t first_id_;
};

// Row p is the one of position p: conversion dropped the two rows that no token uses.
class PositionEmbedding {
 public:
  explicit PositionEmbedding(WeightLoader& loader) : table_(loader.table("embed_positions.weight")) {}
  void add_to(Exec& exec, Tensor positions, Tensor x) const { exec.backend.add_positions(positions, table_.view, x); }

 private:
  Table table_;
};

}  // namespace optserve::engine
