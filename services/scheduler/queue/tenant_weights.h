// How the tenants share a queue: a tenant of weight 2 gets twice the tokens of one of weight 1 while both have work.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/error.h"

namespace optserve::scheduler {

class TenantWeights {
 public:
  // "name=2,other=0.5"; "" gives every tenant the weight 1. Weights are 0.001 to 1,000.
  static Result<TenantWeights> parse(std::string_view text);
  double of(std::string_view tenant) const {
    const auto found = weights_.find(tenant);
    return found == weights_.end() ? 1 : found->second;
  }

 private:
  std::map<std::string, double, std::less<>> weights_;
};

}  // namespace optserve::scheduler
