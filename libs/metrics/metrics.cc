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
#include "metrics/vllm_names.h"

namespace optserve::metrics {

struct Registry::Impl {
  Labels constant;
  OtherNames others = OtherNames::kNone;
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
};

namespace {

std::map<std::string, std::string> label_map(const Labels& labels) { return {labels.begin(), labels.end()}; }

template <class Build, class... More>
auto* add_metric(Build build, Registry::Impl& registry, std::string_view name, std::string_view help,
                 const Labels& labels, const More&... more) {
  constexpr bool kIsCounter = std::is_same_v<Build, decltype(prometheus::BuildCounter())>;
  try {
    if (name.ends_with("_total") != kIsCounter) throw Error("counters, and only they, end in _total");
    auto& family = build.Name(std::string(name))
                       .Help(std::string(help))
                       .Labels(label_map(registry.constant))
                       .Register(registry.registry);
    return &family.Add(label_map(labels), more...);
  } catch (const std::exception& error) {
    throw Error("metric '" + std::string(name) + "': " + error.what());
  }
}

const std::string* label_of(const prometheus::ClientMetric& metric, std::string_view name) {
  for (const auto& label : metric.label) {
    if (label.name == name) return &label.value;
  }
  return nullptr;
}

prometheus::ClientMetric with_vllm_labels(prometheus::ClientMetric metric) {
  std::erase_if(metric.label, [](const auto& label) { return label.name == "rank" || label.name == "stage"; });
  for (auto& label : metric.label) {
    if (label.name == "model") label.name = "model_name";
    if (label.name == "finish_reason") label.name = "finished_reason";
  }
  metric.label.push_back({"engine", "0"});
  return metric;
}

void add_vllm_families(std::vector<prometheus::MetricFamily>& families) {
  std::map<std::string, prometheus::MetricFamily> added;  // two of our names may map to the same one of theirs
  for (const prometheus::MetricFamily& family : families) {
    for (const VllmName& name : kVllmNames) {
      if (name.ours != family.name) continue;
      prometheus::MetricFamily& theirs = added[std::string(name.theirs)];
      theirs.name = name.theirs;
      theirs.help = "As " + family.name;
      theirs.type = family.type;
      for (const prometheus::ClientMetric& metric : family.metric) {
        const std::string* stage = label_of(metric, "stage");
        const bool is_wanted = name.stage.empty() || (stage != nullptr && *stage == name.stage);
        if (is_wanted) theirs.metric.push_back(with_vllm_labels(metric));
      }
    }
  }
  for (auto& [name, family] : added) families.push_back(std::move(family));
}

}  // namespace

void Counter::add(double by) const {
  if (handle_ != nullptr) static_cast<prometheus::Counter*>(handle_)->Increment(by);
}

void Counter::raise_to(double total) const {
  if (handle_ == nullptr) return;
  auto* counter = static_cast<prometheus::Counter*>(handle_);
  if (const double grown = total - counter->Value(); grown > 0) counter->Increment(grown);
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

OtherNames other_names(std::string_view option) { return option == "vllm" ? OtherNames::kVllm : OtherNames::kNone; }

Registry::Registry(Labels constant, OtherNames others) : impl_(std::make_unique<Impl>()) {
  impl_->constant = std::move(constant);
  impl_->others = others;
}

Registry::~Registry() = default;

Counter Registry::counter(std::string_view name, std::string_view help, const Labels& labels) {
  Counter counter;
  counter.handle_ = add_metric(prometheus::BuildCounter(), *impl_, name, help, labels);
  return counter;
}

Gauge Registry::gauge(std::string_view name, std::string_view help, const Labels& labels) {
  Gauge gauge;
  gauge.handle_ = add_metric(prometheus::BuildGauge(), *impl_, name, help, labels);
  return gauge;
}

Histogram Registry::histogram(std::string_view name, std::string_view help, const std::vector<double>& buckets,
                              const Labels& labels) {
  Histogram histogram;
  histogram.handle_ = add_metric(prometheus::BuildHistogram(), *impl_, name, help, labels, buckets);
  return histogram;
}

std::string Registry::text() const {
  std::ostringstream out;
  std::vector<prometheus::MetricFamily> families = impl_->registry.Collect();
  if (impl_->others == OtherNames::kVllm) add_vllm_families(families);
  prometheus::TextSerializer().Serialize(out, families);
  return out.str();
}

}  // namespace optserve::metrics
