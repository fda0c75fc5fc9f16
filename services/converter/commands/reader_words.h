// How foreign files are read, as the command line says it.
#pragma once

#include <string>

#include "base/config.h"
#include "base/error.h"
#include "converter/reader/reader_process.h"

namespace optserve::converter {

struct ReaderWords {
  std::string sandbox = "try";  // require, try, off
  ReaderSettings settings;      // but for the sandbox
};

// Options --sandbox and --reader-seconds.
void add_reader_options(ConfigParser& parser, ReaderWords& reader);
// The settings, with the word read. Refuses other words, and a time below a second.
Result<ReaderSettings> settings_of(const ReaderWords& reader);

}  // namespace optserve::converter
