// Which of two ways of doing the same work is faster, found by timing both in turn now and then: the work may change in
// the meantime, and so may the answer. The first way is taken unless the second is faster by more than 1%.
#pragma once

#include <array>

namespace optserve::backend {

class FasterWay {
 public:
  struct Run {
    bool takes_second = false;
    bool wants_time = false;
  };
  // How the next run is to be done. Must be called before each run, since it counts them.
  Run next();
  // Reports the time of a run that was to be timed. Until then, further runs go the same way.
  void took(double ms);

  static constexpr int kTimes = 8;           // of each way; their medians are compared
  static constexpr int kRunsBetween = 1000;  // from one comparison to the next

 private:
  std::array<std::array<double, kTimes>, 2> times_{};
  int timed_ = 0;  // of both ways, which take turns
  int left_ = 0;   // runs before the next comparison
  bool is_second_faster_ = false;
};

}  // namespace optserve::backend
