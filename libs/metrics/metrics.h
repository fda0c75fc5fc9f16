// Prometheus metrics. Handles are obtained at the start; updating one takes no lock that other metrics share. Label
// values never come from requests. A handle that does not come from a Registry counts nothing. Only this component
// includes prometheus-cpp.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace optserve::metrics {

using Labels = std::vector<std::pair<std::string, std::string>>;

class Counter {
 public:
  void add(double by = 1) const;
  // For a total that is counted elsewhere: adds the amount by which it has grown. A smaller total changes nothing.
  void raise_to(double total) const;

 private:
  friend class Registry;
  void* handle_ = nullptr;
};

class Gauge {
 public:
  void set(double value) const;
  void add(double by) const;

 private:
  friend class Registry;
  void* handle_ = nullptr;
};

class Histogram {
 public:
  void observe(double value) const;

 private:
  friend class Registry;
  void* handle_ = nullptr;
};

// Further names under which a registry also writes its metrics.
enum class OtherNames : uint8_t { kNone, kVllm };
OtherNames other_names(std::string_view option);  // for the value of --metrics-compat

// Owns all metrics of a process. Names start with "optserve_" and end in their unit ("_seconds", "_bytes", "_total").
class Registry {
 public:
  // The labels `constant` are added to every metric. They say what is the same for the whole process, such as the model
  // of a worker.
  explicit Registry(Labels constant = {}, OtherNames others = OtherNames::kNone);
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // The same name and labels give the same metric. Throws Error if the name is that of another kind of metric or is not
  // allowed by Prometheus, and if a counter's name does not end in "_total" or that of another metric does.
  // Thread-safe; meant for start-up.
  Counter counter(std::string_view name, std::string_view help, const Labels& labels = {});
  Gauge gauge(std::string_view name, std::string_view help, const Labels& labels = {});
  Histogram histogram(std::string_view name, std::string_view help, const std::vector<double>& buckets,
                      const Labels& labels = {});
  std::string text() const;  // Prometheus exposition format 0.0.4

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve::metrics
