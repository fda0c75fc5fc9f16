// Keeps the memory of waiting jobs bounded: the bodies of those that wait behind many others are in a file, from which
// they are read back when somebody looks at them. Nothing but memory and time depends on where a body is: order,
// places and fairness follow from what always stays in memory.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "scheduler/jobs/body_file.h"
#include "scheduler/jobs/job.h"

namespace optserve::scheduler {

class ParkedJobs {
 public:
  // From then on bodies are parked: of the jobs that wait, about `in_memory_max` stay in memory from their acceptance
  // on, and as many of those that were read back.
  void park_in(std::unique_ptr<BodyFile> file, size_t in_memory_max);

  // The job begins or ceases to wait, in Stage::kWaiting or Stage::kDelayed.
  void waits(Job& job);
  void left(Job& job);
  // Parks what is too much. Called between turns, since it ends references to bodies.
  void park_excess();

  size_t parked() const { return file_ ? file_->held() : 0; }

 private:
  friend struct Job;
  using Resting = std::list<Job*>;
  void rest(Resting& in, Job& job);
  void load(Job& job);
  // A job that has run, or is followed, or has a question open stays in memory.
  static bool can_park(const JobBody& body);
  // False: there is no room on the disk.
  bool park(Job& job);

  std::unique_ptr<BodyFile> file_;
  size_t in_memory_max_ = 0;
  Resting arrived_;    // in the order in which they began to wait; the last ones are parked
  Resting read_back_;  // in the order in which they were; the first ones are parked
};

}  // namespace optserve::scheduler
