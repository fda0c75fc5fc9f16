// A token and its log-probability under the model's own distribution.
#pragma once

#include "base/ids.h"

namespace optserve::sampling {

struct TokenLogprob {
  static constexpr bool kPositional = true;  // on the wire an array of two
  TokenId id = 0;
  float logprob = 0;

  template <class F>
  void fields(F&& f) {
    f("id", id), f("logprob", logprob);
  }
  bool operator==(const TokenLogprob&) const = default;
};

}  // namespace optserve::sampling
