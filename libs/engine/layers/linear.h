// y = x W^T + b, with a whole W or with W split over the ranks. Among the layers, only this file, the norm, the
// embedding and the head know that there are several ranks.
#pragma once

#include <string>

#include "engine/weight_loader.h"
#include "engine/workspace.h"

namespace optserve::engine {

// Every rank has all of W. There is no bias.
class Linear {
 public:
  Linear(WeightLoader& loader, const std::string& name) : weight_(loader.matrix(name + ".weight")) {}
  void forward(Exec& exec, Tensor x, Tensor out) const {  // [n, in] -> [n, out]
    exec.backend.linear(x, weight_, {}, backend::Activation::kNone, out);
  }

 private:
  quant::Weight weight_;
};

// W is split by output rows: each rank computes its own columns of y, and nothing is exchanged.
class ColumnParallelLinear {
 public:
  ColumnParallelLinear(WeightLoader& loader, const std::string& name,
                       backend::Activation activation = backend::Activation::kNone)
      : weight_(loader.matrix(name + ".weight")), bias_(loader.table(name + ".bias")), activation_(activation) {}
  void forward(Exec& exec, Tensor x, Tensor out) const {  // [n, in] -> [n, out / world]
    exec.backend.linear(x, weight_, bias_.view, activation_, out);
  }

 private:
  quant::Weight weight_;
  Table bias_;
  backend::Activation activation_;
};

// W is split by input columns: each rank has a part of every sum. The residual addition that follows adds the parts
// over the ranks, and then the bias once.
class RowParallelLinear {
 public:
  RowParallelLinear(WeightLoader& loader, const std::string& name)
      : weight_(loader.matrix(name + ".weight")), bias_(loader.table(name + ".bias")) {}
  // [n, in / world] -> [n, out], this rank's part of it, without the bias.
  void forward_part(Exec& exec, Tensor x, Tensor out) const {
    exec.backend.linear(x, weight_, {}, backend::Activation::kNone, out);
  }
  // See Backend::prepare_sparse_input.
  void prepare_sparse_input(backend::Backend& backend) { backend.prepare_sparse_input(weight_); }
  const Tensor& bias() const { return bias_.view; }

 private:
  quant::Weight weight_;
  Table bias_;
};

}  // namespace optserve::engine
