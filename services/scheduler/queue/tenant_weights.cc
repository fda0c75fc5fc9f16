#include "scheduler/queue/tenant_weights.h"

#include <charconv>

#include "base/limits.h"

namespace optserve::scheduler {
namespace {

constexpr double kWeightMin = 0.001;
constexpr double kWeightMax = 1'000;

}  // namespace

Result<TenantWeights> TenantWeights::parse(std::string_view text) {
  TenantWeights weights;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const size_t equals = item.find('=');
    const std::string_view name = item.substr(0, equals);
    const std::string_view number = equals == std::string_view::npos ? "" : item.substr(equals + 1);
    double weight = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), weight);
    const bool is_number = error == std::errc() && end == number.data() + number.size();
    if (!is_number || !(weight >= kWeightMin && weight <= kWeightMax) || name.size() > limits::kTenantBytesMax) {
      return refuse(
          ErrorCode::kBadRequest,
          "tenant-weights: expected name=weight with a weight of 0.001 to 1000, found '" + std::string(item) + "'");
    }
    if (!weights.weights_.emplace(name, weight).second) {
      return refuse(ErrorCode::kBadRequest, "tenant-weights: tenant '" + std::string(name) + "' is named twice");
    }
  }
  return weights;
}

}  // namespace optserve::scheduler
