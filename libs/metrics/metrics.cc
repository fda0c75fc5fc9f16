#include "metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>
#include <sstream>

#include "base/error.h"

namespace optserve::metrics {
namespace {

std::map<std::string, std::string> label_map(const Labels& labels) { return {labels.begin(), labels.end()}; }

template <class Build, class... More>
auto* add_metric(Build build, prometheus::Registry& registry, std::string_view name, std::string_view help,
                 const Labels& labels, const More&... more) {
  try {
    auto& family = build.Name(std::string(name)).Help(std::string(help)).Register(registry);
    return &family.Add(label_map(labels), more...);
  } catch (const std::exception& error) {
    throw Error("metric '" + std::string(name) + "': " + error.what());
  }
}

}  // namespace

struct Registry::Impl {
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
};

void Counter::add(double by) const {
  if (handle_ != nullptr) static_cast<prometheus::Counter*>(handle_)->Increment(by);
}

void Gauge::set(double value) const {
  if (handle_ != nullptr) static_cast<prometheus::Gauge*>(handle_)->Set(value);
}

void Gauge::add(double by) const {
  if (handle_ != nullptr) static_cast<prometheus::Gauge*>(handle_)->Increment(by);
}

void Histogram::observe(double value) const {
  if (handle_ != nullptr) static_cast<prometheus::Histogram*>(handle_)->Observe(value);
}

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Counter Registry::counter(std::string_view name, std::string_view help, const Labels& labels) {
  Counter counter;
  counter.handle_ = add_metric(prometheus::BuildCounter(), impl_->registry, name, help, labels);
  return counter;
}

Gauge Registry::gauge(std::string_view name, std::string_view help, const Labels& labels) {
  Gauge gauge;
  gauge.handle_ = add_metric(prometheus::BuildGauge(), impl_->registry, name, help, labels);
  return gauge;
}

Histogram Registry::histogram(std::string_view name, std::string_view help, const std::vector<double>& buckets,
                              const Labels& labels) {
  Histogram histogram;
  histogram.handle_ = add_metric(prometheus::BuildHistogram(), impl_->registry, name, help, labels, buckets);
  return histogram;
}

std::string Registry::text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, impl_->registry.Collect());
  return out.str();
}

}  // namespace optserve::metrics
