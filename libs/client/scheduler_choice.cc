#include "client/scheduler_choice.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace optserve::client {
namespace {

// FNV-1a.
uint64_t hash_bytes(std::string_view bytes, uint64_t hash = 0xcbf29ce484222325) {
  for (const char c : bytes) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

// The finalizer of SplitMix64: every bit of the result depends on every bit of `x`.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

Result<std::vector<std::string>> split_endpoints(std::string_view list) {
  std::vector<std::string> endpoints;
  const auto refuse_list = [&](const std::string& why) {
    return refuse(ErrorCode::kBadRequest, "endpoints '" + std::string(list) + "': " + why);
  };
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const std::string one(list.substr(begin, end - begin));
    if (one.empty()) return refuse_list("expected addresses separated by commas, found an empty one");
    if (std::find(endpoints.begin(), endpoints.end(), one) != endpoints.end()) {
      return refuse_list(one + " occurs twice");
    }
    endpoints.push_back(one);
    begin = end + 1;
  }
  if (endpoints.size() > kSchedulersMax) {
    return refuse_list("expected at most " + std::to_string(kSchedulersMax) + ", found " +
                       std::to_string(endpoints.size()));
  }
  return endpoints;
}

std::vector<size_t> scheduler_order(std::string_view tenant, std::string_view key,
                                    const std::vector<std::string>& endpoints) {
  const uint64_t job = hash_bytes(key, hash_bytes(std::string_view("\0", 1), hash_bytes(tenant)));
  std::vector<uint64_t> weights;
  for (const std::string& endpoint : endpoints) weights.push_back(mix(mix(job) ^ hash_bytes(endpoint)));
  std::vector<size_t> order(endpoints.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : endpoints[a] < endpoints[b];
  });
  return order;
}

}  // namespace optserve::client
