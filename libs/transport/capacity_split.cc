#include "transport/capacity_split.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/limits.h"

namespace optserve::transport {
namespace {

constexpr int32_t kFloorsDivisor = 16;

size_t registered_among(const std::vector<CapacityDemand>& demands) {
  return static_cast<size_t>(
      std::count_if(demands.begin(), demands.end(), [](const CapacityDemand& demand) { return demand.registered; }));
}

// The jobs that a scheduler could keep running beyond its floor. `waiting` comes from the scheduler and may be any
// number.
int64_t wanted(const CapacityDemand& demand, int32_t floor) {
  const int64_t waiting = std::clamp<int64_t>(demand.waiting, 0, limits::kOpenJobsMax);
  return std::max<int64_t>(0, demand.held + waiting - floor);
}

int64_t sum(const std::vector<int32_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

}  // namespace

CapacitySplit::CapacitySplit(int32_t total, size_t schedulers) : total_(total), shares_(schedulers) {
  check(total >= 1, "a group takes at least one lease");
}

int32_t CapacitySplit::floor(int32_t total, size_t registered) {
  const auto sharers = static_cast<int32_t>(std::max<size_t>(registered, 1));
  return std::max(1, total / kFloorsDivisor / sharers);
}

std::vector<int32_t> CapacitySplit::target(int32_t total, const std::vector<CapacityDemand>& demands) {
  const size_t registered = registered_among(demands);
  const int32_t least = floor(total, registered);
  std::vector<int32_t> shares(demands.size());
  int64_t wanted_total = 0;
  for (const CapacityDemand& demand : demands) wanted_total += demand.registered ? wanted(demand, least) : 0;
  const int64_t rest = std::max<int64_t>(0, total - least * static_cast<int64_t>(registered));
  const bool enough = wanted_total <= rest;
  const int64_t headroom = enough && registered > 0 ? (rest - wanted_total) / static_cast<int64_t>(registered) : 0;
  for (size_t i = 0; i < demands.size(); ++i) {
    if (!demands[i].registered) continue;
    const int64_t want = wanted(demands[i], least);
    shares[i] = static_cast<int32_t>(least + (enough ? want + headroom : rest * want / wanted_total));
  }
  // Hands out one by one what rounding left over, which is less than one for each.
  int64_t left = std::max<int64_t>(0, total - sum(shares));
  for (size_t i = 0; i < demands.size() && left > 0; ++i) {
    if (!demands[i].registered || (!enough && wanted(demands[i], least) == 0)) continue;
    ++shares[i];
    --left;
  }
  return shares;
}

void CapacitySplit::update(const std::vector<CapacityDemand>& demands) {
  check(demands.size() == shares_.size(), "one demand for each scheduler");
  const std::vector<int32_t> targets = target(total_, demands);
  const int32_t least = floor(total_, registered_among(demands));
  for (size_t i = 0; i < shares_.size(); ++i) {
    if (!demands[i].registered) {
      shares_[i] = 0;
      continue;
    }
    shares_[i] = std::max(shares_[i], least);
    if (shares_[i] > targets[i]) shares_[i] -= (shares_[i] - targets[i] + 1) / 2;
  }
  // The floor of a new scheduler is taken from those that have more than they should.
  int64_t excess = sum(shares_) - total_;
  for (size_t i = 0; i < shares_.size() && excess > 0; ++i) {
    const auto given = static_cast<int32_t>(std::clamp<int64_t>(shares_[i] - targets[i], 0, excess));
    shares_[i] -= given;
    excess -= given;
  }
  // Leases that another scheduler holds beyond its share are not handed out a second time.
  int64_t taken = 0;
  for (size_t i = 0; i < shares_.size(); ++i) taken += std::max(shares_[i], demands[i].held);
  int64_t granted = sum(shares_);
  for (size_t i = 0; i < shares_.size(); ++i) {
    if (!demands[i].registered || shares_[i] >= targets[i]) continue;
    const int32_t own = std::max(shares_[i], demands[i].held);
    const int64_t by_leases = own + std::max<int64_t>(0, total_ - taken);
    const int64_t by_shares = shares_[i] + std::max<int64_t>(0, total_ - granted);
    const auto grown = static_cast<int32_t>(std::min<int64_t>({targets[i], by_leases, by_shares}));
    taken += std::max(0, grown - own);
    granted += grown - shares_[i];
    shares_[i] = grown;
  }
}

}  // namespace optserve::transport
