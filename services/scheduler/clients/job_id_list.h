// Job ids in the order in which they came, each once.
#pragma once

#include <deque>
#include <unordered_set>
#include <vector>

#include "base/ids.h"

namespace optserve::scheduler {

class JobIdList {
 public:
  void push(const JobId& job) {
    if (known_.insert(job).second) order_.push_back(job);
  }
  // The first `count`, or all.
  std::vector<JobId> take(size_t count) {
    std::vector<JobId> taken;
    for (; taken.size() < count && !order_.empty(); order_.pop_front()) {
      known_.erase(order_.front());
      taken.push_back(order_.front());
    }
    return taken;
  }
  size_t size() const { return order_.size(); }
  bool empty() const { return order_.empty(); }
  void clear() { order_.clear(), known_.clear(); }

 private:
  std::deque<JobId> order_;
  std::unordered_set<JobId> known_;
};

}  // namespace optserve::scheduler
