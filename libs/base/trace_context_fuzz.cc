// Any bytes as a header `traceparent`: what is read is in the form of version 00, and reads as itself.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/trace_context.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  const std::string_view header(reinterpret_cast<const char*>(data), size);
  const std::optional<std::string> read = read_traceparent(header);
  if (!read) return 0;
  check(is_traceparent(*read), "what is read can be read");
  check(trace_id_of(*read) == header.substr(3, 32), "it is the same trace");
  check(is_sampled(*read) == is_sampled(header.substr(0, 55)), "it is as wanted as before");
  return 0;
}
