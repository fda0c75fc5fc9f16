// How foreign files are read, from the words of the command line.
#pragma once

#include "base/error.h"
#include "conversion/command_options.h"
#include "converter/reader/reader_process.h"

namespace optserve::converter {

// Refuses unknown words, and times below a second.
Result<ReaderSettings> settings_of(const conversion::ReaderOptions& options);

}  // namespace optserve::converter
