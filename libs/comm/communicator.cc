#include "comm/communicator.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "comm/reduction.h"

namespace optserve::comm {

namespace {

class SoloCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int world() const override { return 1; }
  void all_reduce_sum(Tensor) override { throw_if_lost(); }
  void all_gather(Tensor x, Tensor out) override {
    throw_if_lost();
    check_host_block(x);
    check_host_block(out);
    check_eq(out.bytes(), x.bytes(), "bytes gathered");
    std::memcpy(out.raw(), x.raw(), x.bytes());
  }
  void broadcast(Tensor, int) override { throw_if_lost(); }
  void broadcast_bytes(std::vector<uint8_t>&, int) override { throw_if_lost(); }
  void barrier() override { throw_if_lost(); }
  void abort(const std::string& reason) override { reason_ = reason.empty() ? "aborted" : reason; }
  void throw_if_lost() override {
    if (!reason_.empty()) throw Error(reason_);
  }

 private:
  std::string reason_;
};

}  // namespace

std::unique_ptr<Communicator> make_solo_communicator() { return std::make_unique<SoloCommunicator>(); }

int64_t Communicator::all_reduce_min(int64_t value) {
  std::vector<int64_t> all(static_cast<size_t>(world()));
  all_gather(Tensor(&value, DType::kI64, {1}), Tensor(all.data(), DType::kI64, {world()}));
  return *std::ranges::min_element(all);
}

}  // namespace optserve::comm
