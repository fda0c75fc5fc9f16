// SHA-256 of bytes that are at hand as a whole.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace optserve {

std::array<uint8_t, 32> sha256(std::string_view bytes);

}  // namespace optserve
