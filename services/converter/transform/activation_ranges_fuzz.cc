// Any bytes as a file of ranges: what is accepted survives being written and read again.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "converter/transform/activation_ranges.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  model_spec::OptConfig config;  // of the seeds
  config.num_layers = 1;
  config.hidden = 2;
  config.ffn = 3;
  const checkpoint::MemorySource source(std::as_bytes(std::span(data, size)));
  const auto ranges = converter::parse_ranges(source, config);
  if (!ranges.ok()) return 0;
  const std::string file = converter::ranges_file(ranges.value());
  const auto again = converter::parse_ranges(checkpoint::MemorySource(std::as_bytes(std::span(file))), config);
  check(again.ok() && converter::ranges_file(again.value()) == file, "round trip");
  return 0;
}
