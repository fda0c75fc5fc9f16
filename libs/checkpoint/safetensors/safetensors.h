// safetensors files: 8-byte little-endian header length, JSON header, tensor bytes.
// https://huggingface.co/docs/safetensors - read strictly: every byte after the header belongs to exactly one tensor.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "checkpoint/io/byte_source.h"
#include "tensor/dtype.h"

namespace optserve::checkpoint {

inline constexpr uint64_t kSafetensorsHeaderMax = 16 << 20;
inline constexpr size_t kStoredTensorsMax = 100'000;
inline constexpr size_t kStoredNameMax = 1024;
inline constexpr size_t kStoredDimsMax = 8;

struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // of the first byte, from the start of the file
  uint64_t bytes = 0;
};

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0;  // bytes before the first tensor

  const StoredTensor* find(std::string_view name) const;  // nullptr if absent

  std::unordered_map<std::string, size_t> index;  // name to position in `tensors`
};

// Reads the header and checks it against the file's size. The message names the file and the fault.
Result<SafetensorsHeader> read_safetensors(const ByteSource& file);

// The bytes that precede the tensors' data, padded with spaces so that data begins at a multiple of kDataAlignment.
// Sets `offset` and `bytes` of each tensor; they follow each other without gaps.
inline constexpr uint64_t kDataAlignment = 4096;
std::string safetensors_header(std::vector<StoredTensor>& tensors, const std::map<std::string, std::string>& metadata);

// The number of elements of a shape, or of bytes; nullopt if a dimension is negative or the product exceeds 63 bits.
std::optional<uint64_t> checked_elements(const std::vector<int64_t>& shape);
std::optional<uint64_t> checked_bytes(const std::vector<int64_t>& shape, DType dtype);
std::string shape_text(const std::vector<int64_t>& shape);  // "[3, 4]"

}  // namespace optserve::checkpoint
