// What happened in a run: a hash over all of it, and its last lines.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"

namespace optserve::simulation {

class Trace {
 public:
  // `what` is a literal; `note` another one or empty (the kind of a message); `about` tells events of one kind apart.
  void add(Instant when, const char* what, int node, const char* note = "", uint64_t about = 0);
  uint64_t hash() const { return hash_; }
  std::string last_lines() const;

 private:
  struct Line {
    Instant when{};
    const char* what = "";
    const char* note = "";
    int node = 0;
    uint64_t about = 0;
  };
  static constexpr size_t kLines = 200;
  std::vector<Line> lines_;
  size_t next_ = 0;
  uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace optserve::simulation
