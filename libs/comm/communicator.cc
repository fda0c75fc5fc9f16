#include "comm/communicator.h"

#include <algorithm>

namespace optserve::comm {

int64_t Communicator::all_reduce_min(int64_t value) {
  std::vector<int64_t> all(static_cast<size_t>(world()));
  all_gather(Tensor(&value, DType::kI64, {1}), Tensor(all.data(), DType::kI64, {world()}));
  return *std::ranges::min_element(all);
}

}  // namespace optserve::comm
