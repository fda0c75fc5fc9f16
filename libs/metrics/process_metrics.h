// The metrics that Prometheus expects of every process (processor time, memory, descriptors, start time), and the
// build.
#pragma once

#include <string>

namespace optserve::metrics {

// Read from /proc at each call; in the exposition format of Registry::text(). What cannot be read is left out.
std::string process_metrics_text();

}  // namespace optserve::metrics
