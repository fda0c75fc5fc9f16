// The picture that OPT serving is compared by: throughput and latency against the batch size.
#pragma once

#include <string>
#include <vector>

#include "cli/bench/bench_series.h"

namespace optserve::cli {

// An SVG file of two panels with a legend below. Batches are on a base-2 axis, figures on a logarithmic one. Published
// series are dashed, grey and hollow; measured ones solid, coloured and filled. At least one series, each with points.
std::string render_plot(const std::vector<PlotSeries>& series);

// What goes into one picture: the measured series, and the published ones where they answer the same question (prompts
// of 4 tokens, 256 new ones).
std::vector<PlotSeries> with_published(std::vector<PlotSeries> measured);

}  // namespace optserve::cli
