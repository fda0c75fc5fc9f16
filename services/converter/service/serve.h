// The converter as a process of the pipeline.
#pragma once

#include "converter/commands/options.h"

namespace optserve::converter {

// Until SIGTERM has drained it. Throws Error.
void serve(const ServeOptions& options);

}  // namespace optserve::converter
