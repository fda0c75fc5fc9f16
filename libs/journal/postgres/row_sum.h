// The checksum over the values of a row, each with its kind and length, so that different rows give different bytes.
#pragma once

#include <cstdint>
#include <string_view>

#include "journal/crc32c.h"

namespace optserve::journal {

class RowSum {
 public:
  RowSum& add(int64_t number) { return add('i', {reinterpret_cast<const char*>(&number), sizeof number}); }
  RowSum& add(std::string_view bytes) { return add('b', bytes); }
  int64_t value() const { return crc_; }

 private:
  RowSum& add(char kind, std::string_view bytes) {
    const auto size = static_cast<int64_t>(bytes.size());
    crc_ = crc32c({&kind, 1}, crc_);
    crc_ = crc32c({reinterpret_cast<const char*>(&size), sizeof size}, crc_);
    crc_ = crc32c(bytes, crc_);
    return *this;
  }
  uint32_t crc_ = 0;
};

}  // namespace optserve::journal
