#include <condition_variable>
#include <cstring>
#include <mutex>

#include "base/error.h"
#include "comm/communicator.h"
#include "comm/reduction.h"

namespace optserve::comm {

namespace {

// What a rank shows to its peers during one operation.
struct Offer {
  const char* operation = "";
  void* data = nullptr;
  size_t bytes = 0;
  const std::vector<uint8_t>* vector = nullptr;
};

// An operation is a round: all ranks enter it with their offers, copy from each other, and leave together. Once a round
// is open every rank finishes it, even if the group is aborted, so that nobody frees memory that a peer still reads.
class ThreadGroup {
 public:
  explicit ThreadGroup(int world) : offers_(static_cast<size_t>(world)) {}

  int world() const { return static_cast<int>(offers_.size()); }
  const Offer& offer(int rank) const { return offers_[static_cast<size_t>(rank)]; }

  void enter(int rank, const Offer& mine) {
    std::unique_lock lock(mutex_);
    throw_if_aborted();
    offers_[static_cast<size_t>(rank)] = mine;
    const uint64_t round = round_;
    if (++arrived_ == world()) {
      arrived_ = 0;
      copying_ = world();
      ++round_;
      changed_.notify_all();
      return;
    }
    changed_.wait(lock, [&] { return round_ != round || !reason_.empty(); });
    if (round_ == round) throw Error(reason_);
  }

  void leave() {
    std::unique_lock lock(mutex_);
    if (--copying_ == 0) changed_.notify_all();
    changed_.wait(lock, [&] { return copying_ == 0; });
    throw_if_aborted();
  }

  void abort(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    if (reason_.empty()) reason_ = reason.empty() ? "aborted" : reason;
    changed_.notify_all();
  }

  void throw_if_lost() {
    const std::lock_guard lock(mutex_);
    throw_if_aborted();
  }

 private:
  void throw_if_aborted() const {
    if (!reason_.empty()) throw Error(reason_);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Offer> offers_;
  int arrived_ = 0;     // ranks that wait for the round to open
  int copying_ = 0;     // ranks inside the open round
  uint64_t round_ = 0;  // rounds opened so far
  std::string reason_;  // why the group was aborted; empty while it is not
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank) : group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int world() const override { return group_->world(); }

  // Each rank adds one slice of all blocks and writes the sum into all of them. The slices do not overlap.
  void all_reduce_sum(Tensor x) override {
    check_host_block(x);
    round({"all_reduce_sum", x.raw(), x.bytes(), nullptr}, [&] {
      const int64_t begin = x.numel() * rank_ / world(), end = x.numel() * (rank_ + 1) / world();
      const size_t offset = static_cast<size_t>(begin) * dtype_bytes(x.dtype());
      std::vector<const void*> blocks;
      for (int peer = 0; peer < world(); ++peer) blocks.push_back(at(peer, offset));
      sum_in_order(x.dtype(), blocks, end - begin, at(0, offset));
      const size_t bytes = static_cast<size_t>(end - begin) * dtype_bytes(x.dtype());
      for (int peer = 1; peer < world(); ++peer) std::memcpy(at(peer, offset), at(0, offset), bytes);
    });
  }

  void all_gather(Tensor x, Tensor out) override {
    check_host_block(x);
    check_host_block(out);
    check_eq(out.bytes(), x.bytes() * static_cast<size_t>(world()), "bytes gathered");
    round({"all_gather", x.raw(), x.bytes(), nullptr}, [&] {
      for (int peer = 0; peer < world(); ++peer) {
        std::memcpy(static_cast<char*>(out.raw()) + static_cast<size_t>(peer) * x.bytes(), at(peer, 0), x.bytes());
      }
    });
  }

  void broadcast(Tensor x, int root) override {
    check_host_block(x);
    round({"broadcast", x.raw(), x.bytes(), nullptr}, [&] {
      if (rank_ != root) std::memcpy(x.raw(), at(root, 0), x.bytes());
    });
  }

  void broadcast_bytes(std::vector<uint8_t>& bytes, int root) override {
    round({"broadcast_bytes", nullptr, 0, &bytes}, [&] {
      if (rank_ != root) bytes = *group_->offer(root).vector;
    });
  }

  void barrier() override {
    round({"barrier", nullptr, 0, nullptr}, [] {});
  }
  void abort(const std::string& reason) override { group_->abort(reason); }
  void throw_if_lost() override { group_->throw_if_lost(); }

 private:
  template <class Copy>
  void round(const Offer& mine, const Copy& copy) {
    group_->enter(rank_, mine);
    const Offer& peer = group_->offer((rank_ + 1) % world());
    check(std::strcmp(peer.operation, mine.operation) == 0 && peer.bytes == mine.bytes, "all ranks make the same call");
    copy();
    group_->leave();
  }
  void* at(int peer, size_t offset) const { return static_cast<char*>(group_->offer(peer).data) + offset; }

  std::shared_ptr<ThreadGroup> group_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int world) {
  check(world >= 1, "a group has at least one rank");
  const auto group = std::make_shared<ThreadGroup>(world);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < world; ++rank) ranks.push_back(std::make_unique<ThreadCommunicator>(group, rank));
  return ranks;
}

}  // namespace optserve::comm
