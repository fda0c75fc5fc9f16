// CRC-32 as zip files use it (reflected polynomial 0xEDB88320).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace optserve::checkpoint {

// Continues `crc` (0 at the start) over `bytes`.
uint32_t crc32(uint32_t crc, std::span<const std::byte> bytes);

}  // namespace optserve::checkpoint
