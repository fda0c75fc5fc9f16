// The published figures that OPT serving is compared with.
#pragma once

#include <span>
#include <string_view>

namespace optserve::cli {

struct PublishedPoint {
  int batch = 0;
  double ms_per_token = 0;
  double qps = 0;
};

struct PublishedSeries {
  std::string_view model;    // "opt-30b"
  std::string_view weights;  // "fp16", "int8"
  int world = 0;             // GPUs that share the model (MP)
  std::span<const PublishedPoint> points;
};

inline constexpr int kPublishedInputTokens = 4;
inline constexpr int kPublishedOutputTokens = 256;
inline constexpr std::string_view kPublishedSource =
    "FasterTransformer v5.3 on A100-80GB (p4de.24xlarge), figures read off metaseq's published chart";

// OPT-30B on 2 and 8 GPUs, OPT-175B on 8; the last batch of each is the last before memory ran out.
std::span<const PublishedSeries> published_series();

}  // namespace optserve::cli
