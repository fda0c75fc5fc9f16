// Any bytes as a torch.save file, with correct CRCs filled in where a zip directory is found; all tensors are read.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "checkpoint/safetensors/safetensors.h"
#include "checkpoint/torch/crc32.h"
#include "checkpoint/torch/pt_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::checkpoint;
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  // Mutations rarely keep a CRC right. The CRC of data.pkl must be right too, so it is corrected in both headers.
  const MemorySource first{std::span<const std::byte>(bytes)};
  if (const auto zip = read_zip(first); zip.ok()) {
    for (const ZipEntry& entry : zip.value().entries) {
      const uint32_t crc = crc32(0, std::span(bytes).subspan(entry.offset, entry.bytes));
      for (size_t i = 0; i + 4 <= size; ++i) {
        if (std::memcmp(bytes.data() + i, &entry.crc32, 4) == 0) std::memcpy(bytes.data() + i, &crc, 4);
      }
    }
  }
  auto file = PtFile::read(std::make_unique<MemorySource>(std::span<const std::byte>(bytes)));
  if (!file.ok()) return 0;
  for (const PickleTensor& tensor : file.value()->document().tensors()) {
    if (!PtFile::readable(tensor)) continue;
    const auto elements = checked_elements(tensor.shape);
    std::vector<std::byte> out(elements.value_or(0) * optserve::dtype_bytes(file.value()->dtype(tensor)));
    file.value()->read_rows(tensor, 0, tensor.shape.empty() ? 1 : tensor.shape[0], out);
    if (!file.value()->check_storage(tensor).ok()) return 0;
  }
  return 0;
}
