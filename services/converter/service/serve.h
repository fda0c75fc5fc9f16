// The converter as a process of the pipeline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/config.h"
#include "conversion/command_options.h"
#include "keys/key_options.h"

namespace optserve::converter {

struct ServeOptions {
  CommonOptions common;
  std::string name;  // of this process for operators; empty: host and process id
  std::vector<std::string> schedulers = {"tcp://127.0.0.1:5556"};
  std::vector<std::string> roots;  // folders that jobs may read and write
  int64_t drain_seconds = 60;      // after SIGTERM, for the running conversion
  int64_t pass_mib_max = 0;        // see shards_per_pass() in write/passes.h
  conversion::ReaderOptions reader;
  keys::ClientKeyOptions keys;
};

// Until SIGTERM has drained it. Throws Error.
void serve(const ServeOptions& options, const Clock& clock);

}  // namespace optserve::converter
