// Turns words of clients into names of the queue.
#pragma once

#include <string>
#include <string_view>

namespace optserve::http_api {

// `text` itself if it is a name (base/input_check.h) of at most `bytes_max` bytes; otherwise a digest of it, which is
// such a name. Different texts get different names. `bytes_max` is at least 40.
std::string name_of(std::string_view text, size_t bytes_max);
// 64 bits of a digest of `text`.
uint64_t number_of(std::string_view text);

}  // namespace optserve::http_api
