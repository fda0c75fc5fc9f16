#include "checkpoint/torch/crc32.h"

#include <isa-l/crc.h>

namespace optserve::checkpoint {

uint32_t crc32(uint32_t crc, std::span<const std::byte> bytes) {
  return crc32_gzip_refl(crc, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

}  // namespace optserve::checkpoint
