// Any bytes as a zip file: either the members are disjoint and inside the file, or it is refused.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "checkpoint/torch/zip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::checkpoint;
  const MemorySource source(std::as_bytes(std::span(data, size)));
  const optserve::Result<ZipDirectory> zip = read_zip(source);
  if (!zip.ok()) return 0;
  uint64_t end = 0;
  for (const ZipEntry& entry : zip.value().entries) {
    optserve::check(entry.offset >= end && entry.bytes <= size && entry.offset <= size - entry.bytes, "member range");
    end = entry.offset + entry.bytes;
    optserve::check(zip.value().find(entry.name) == &entry, "member index");
  }
  return 0;
}
