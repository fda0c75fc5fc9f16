// A form in pieces whose sizes the input chooses is read as the same parts as in one piece, in bounded memory.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "http/message/multipart.h"

namespace {

struct Text final : optserve::http::FormParts {
  bool on_part(std::string_view name, std::string_view file) override {
    text += "[" + std::string(name) + "|" + std::string(file) + "]";
    return true;
  }
  bool on_content(std::string_view bytes) override {
    text += bytes;
    return true;
  }
  std::string text;
};

std::string read(std::string_view bytes, size_t piece) {
  Text parts;
  optserve::http::MultipartReader reader("B", parts);
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, piece);
    if (!reader.feed(part)) return "failed";
    bytes.remove_prefix(part.size());
  }
  return reader.is_complete() ? parts.text : "incomplete";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (read(bytes, bytes.size() + 1) != read(bytes, 1 + data[0] % 16)) std::abort();
  optserve::http::multipart_boundary(bytes);
  return 0;
}
