// The jobs of one model that wait for a group: by priority, then in order of acceptance, so that a retry keeps its
// place.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

#include "base/limits.h"
#include "scheduler/job.h"

namespace optserve::scheduler {

class JobQueue {
 public:
  enum class Verdict { kTake, kSkip, kStop };

  void push(Job& job) {
    size_ += by_priority_[static_cast<size_t>(job.spec.priority)].emplace(job.order, &job).second ? 1 : 0;
  }
  void remove(Job& job) { size_ -= by_priority_[static_cast<size_t>(job.spec.priority)].erase(job.order); }
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  // Jobs that would run before a new one of this priority.
  size_t ahead_of(int32_t priority) const {
    size_t ahead = 0;
    for (size_t p = static_cast<size_t>(priority); p < by_priority_.size(); ++p) ahead += by_priority_[p].size();
    return ahead;
  }
  // Takes out the first job that `verdict` says to take. kSkip looks at the next one, at most kLookahead times.
  template <class F>
  Job* take(F&& verdict) {
    int looked = 0;
    for (size_t p = by_priority_.size(); p-- > 0;) {
      for (auto it = by_priority_[p].begin(); it != by_priority_[p].end(); ++it) {
        if (++looked > kLookahead) return nullptr;
        Job* job = it->second;
        const Verdict said = verdict(*job);
        if (said == Verdict::kStop) return nullptr;
        if (said == Verdict::kSkip) continue;
        by_priority_[p].erase(it);
        --size_;
        return job;
      }
    }
    return nullptr;
  }

 private:
  static constexpr int kLookahead = 64;  // bounds the work of one decision
  std::array<std::map<uint64_t, Job*>, limits::kPriorityMax + 1> by_priority_;
  size_t size_ = 0;
};

}  // namespace optserve::scheduler
