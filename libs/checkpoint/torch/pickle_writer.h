// Writes pickles that torch.load accepts with weights_only: dictionaries of texts, numbers and tensors, with only
// opcodes and globals that pickle.h reads. The same calls give the same bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace optserve::checkpoint {

class PickleWriter {
 public:
  // Keys and values alternate between these two calls.
  void begin_dict();
  void end_dict();

  void text(std::string_view value);
  void integer(int64_t value);
  void boolean(bool value);
  // A contiguous tensor that takes up all of storage `storage`. `dtype` must be one that all versions of torch have.
  void tensor(size_t storage, DType dtype, const std::vector<int64_t>& shape);

  // The whole pickle. Called once, after the only value.
  std::string finish() const;

 private:
  void numbers(const std::vector<int64_t>& values);

  std::string body_;
};

}  // namespace optserve::checkpoint
