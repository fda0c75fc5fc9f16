// Any bytes as a safetensors file: either the tensors cover the data exactly, or the file is refused.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "checkpoint/safetensors/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::checkpoint;
  const MemorySource source(std::as_bytes(std::span(data, size)));
  const auto header = read_safetensors(source);
  if (!header.ok()) return 0;
  uint64_t next = header.value().data_begin;
  for (const StoredTensor& tensor : header.value().tensors) {
    optserve::check(tensor.offset == next, "tensors follow each other");
    optserve::check(checked_bytes(tensor.shape, tensor.dtype) == tensor.bytes, "bytes of a shape");
    next += tensor.bytes;
  }
  optserve::check(next == size, "tensors fill the file");
  return 0;
}
