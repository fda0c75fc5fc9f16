// A request in pieces whose sizes the input chooses is read as the same request as in one piece.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "http/message/request_reader.h"

namespace {

using optserve::http::RequestReader;
using State = RequestReader::State;

// With a `piece` of zero, all at once. Returns what was read, as text.
std::string read(std::string_view bytes, size_t piece) {
  RequestReader reader({.target_bytes_max = 256, .head_bytes_max = 2'048, .fields_max = 20});
  const std::string_view all = bytes;
  while (!bytes.empty() && reader.state() != State::kDone && reader.state() != State::kFailed) {
    bytes.remove_prefix(reader.feed(piece == 0 ? bytes : bytes.substr(0, piece)));
    if (reader.state() == State::kHeadDone) reader.begin_body(512);
    if (reader.request().body.size() > 512) std::abort();
  }
  if (reader.state() == State::kFailed) return "failed " + std::to_string(reader.status());
  if (reader.state() != State::kDone) return "more";
  const auto& request = reader.request();
  std::string text = request.method + " " + request.target.path + "\n";
  for (const auto& segment : request.target.segments) text += segment + "\n";
  for (const auto& [name, value] : request.target.query) text += name + "=" + value + "\n";
  for (const auto& [name, value] : request.headers) text += name + ":" + value + "\n";
  return text + request.body + "\n" + std::to_string(all.size() - bytes.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string whole = read(bytes, 0);
  const std::string pieces = read(bytes, 1 + data[0] % 16);
  if (whole != pieces) std::abort();
  return 0;
}
