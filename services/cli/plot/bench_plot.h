// Draws throughput and latency against the batch size, as OPT serving systems are usually compared.
#pragma once

#include <string>
#include <vector>

#include "cli/plot/plot_series.h"

namespace optserve::cli {

// The text of an SVG file with two panels and a legend below them. Batches are on a base-2 axis, figures on a
// logarithmic one. Published series are dashed, grey and hollow; measured ones are solid, coloured and filled. There
// must be at least one series, and each must have points.
std::string render_plot(const std::vector<PlotSeries>& series);

// The measured series, and behind them the published ones that are comparable: they have prompts and outputs of the
// same lengths as every measured series.
std::vector<PlotSeries> with_published(const std::vector<PlotSeries>& measured,
                                       const std::vector<PlotSeries>& published);

}  // namespace optserve::cli
