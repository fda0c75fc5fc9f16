// Constants of the zip format that its reader and its writer share: APPNOTE.TXT 6.3.10, sections 4.3.7 (local header),
// 4.3.9 (data descriptor), 4.3.12 (directory), 4.3.14 to 4.3.16 (end records).
#pragma once

#include <cstdint>

namespace optserve::checkpoint::zip_format {

inline constexpr uint32_t kLocalSignature = 0x04034b50;
inline constexpr uint32_t kDescriptorSignature = 0x08074b50;
inline constexpr uint32_t kDirectorySignature = 0x02014b50;
inline constexpr uint32_t kEndSignature = 0x06054b50;
inline constexpr uint32_t kEnd64Signature = 0x06064b50;
inline constexpr uint32_t kLocator64Signature = 0x07064b50;

inline constexpr uint64_t kLocalBytes = 30;
inline constexpr uint64_t kDirectoryBytes = 46;
inline constexpr uint64_t kEndBytes = 22;
inline constexpr uint64_t kEnd64Bytes = 56;
inline constexpr uint64_t kLocator64Bytes = 20;

inline constexpr uint16_t kFlagDescriptor = 1 << 3;  // checksum and sizes follow the data
inline constexpr uint16_t kFlagUtf8 = 1 << 11;       // names are UTF-8
inline constexpr uint16_t kExtra64 = 0x0001;         // extra field with 64-bit sizes and offsets

}  // namespace optserve::checkpoint::zip_format
