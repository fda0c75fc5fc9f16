// Any bytes as a manifest: what is accepted stays the same when it is written and read again.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "checkpoint/manifest/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::checkpoint;
  const auto manifest = parse_manifest({reinterpret_cast<const char*>(data), size});
  if (!manifest.ok()) return 0;
  const std::string text = manifest_text(manifest.value());
  const auto again = parse_manifest(text);
  optserve::check(again.ok() && manifest_text(again.value()) == text, "round trip");
  return 0;
}
