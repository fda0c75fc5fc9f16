// Writes pickles that torch.load takes with weights_only: dictionaries of texts, numbers and tensors, in the opcodes
// and with the three names that pickle.h reads. The same calls give the same bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace optserve::checkpoint {

class PickleWriter {
 public:
  // Between the two, keys and values in turn.
  void begin_dict();
  void end_dict();

  void text(std::string_view value);
  void integer(int64_t value);
  void boolean(bool value);
  // A contiguous tensor that is all of storage `storage`. `dtype` is one that torch of any version has.
  void tensor(size_t storage, DType dtype, const std::vector<int64_t>& shape);

  // The whole pickle; once, after the only value.
  std::string finish() const;

 private:
  void numbers(const std::vector<int64_t>& values);

  std::string body_;
};

}  // namespace optserve::checkpoint
