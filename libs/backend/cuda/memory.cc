#include <algorithm>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/kernel_names.h"
#include "kernels/elementwise.h"

namespace optserve::backend {

using cuda::expect;

namespace {

kernels::Element element_of_weights(DType dtype) {
  const std::optional<kernels::Element> element = cuda::element_of(dtype);
  if (element) return *element;
  check_failed("not a type of weights: " + std::string(dtype_name(dtype)), std::source_location::current());
}

}  // namespace

std::optional<DeviceMemory> CudaBackend::memory() const {
  DeviceMemory memory;
  expect(cudaMemGetInfo(&memory.free_bytes, &memory.total_bytes), "cudaMemGetInfo");
  return memory;
}

Buffer CudaBackend::allocate(size_t bytes) { return cuda::device_buffer(bytes, device_); }

Buffer CudaBackend::allocate_host(size_t bytes) { return cuda::pinned_buffer(bytes); }

void CudaBackend::upload(Tensor destination, const void* source) {
  if (destination.bytes() == 0) return;
  expect(cudaMemcpyAsync(destination.raw(), source, destination.bytes(), cudaMemcpyHostToDevice, stream_), "upload");
}

void CudaBackend::copy_to_host(void* destination, const Tensor& source) {
  if (source.bytes() == 0) return;
  expect(cudaMemcpyAsync(destination, source.raw(), source.bytes(), cudaMemcpyDeviceToHost, stream_), "copy_to_host");
}

void CudaBackend::download(void* destination, const Tensor& source) {
  copy_to_host(destination, source);
  synchronize();
}

void CudaBackend::fill_zero(Tensor x) {
  if (x.bytes() > 0) expect(cudaMemsetAsync(x.raw(), 0, x.bytes(), stream_), "fill_zero");
}

void CudaBackend::do_copy(const Tensor& source, Tensor destination) {
  const size_t element = dtype_bytes(source.dtype());
  const auto width = static_cast<size_t>(source.dim(source.ndim() - 1));
  const size_t rows = static_cast<size_t>(source.numel()) / width;
  expect(cudaMemcpy2DAsync(destination.raw(), static_cast<size_t>(destination.row_stride()) * element, source.raw(),
                           static_cast<size_t>(source.row_stride()) * element, width * element, rows,
                           cudaMemcpyDeviceToDevice, stream_),
         "copy");
}

void* CudaBackend::Scratch::at_least(CudaBackend& backend, size_t bytes) {
  if (buffer.bytes() >= bytes && buffer.data() != nullptr) return buffer.data();
  check(!backend.capturing_, "scratch of a graph is allocated by its first run");
  backend.synchronize();
  backend.forget_recordings();
  buffer = Buffer();  // the old buffer is no longer used: freed before more is allocated
  buffer = backend.allocate(bytes);
  // Some kernels count in their scratch and leave it at zero.
  expect(cudaMemsetAsync(buffer.data(), 0, bytes, backend.stream_), "scratch");
  return buffer.data();
}

Buffer CudaBackend::load_table(const void* source, DType source_dtype, int64_t numel) {
  const size_t source_bytes = static_cast<size_t>(numel) * dtype_bytes(source_dtype);
  Buffer table = allocate(static_cast<size_t>(numel) * dtype_bytes(compute_dtype_));
  if (numel == 0) return table;
  const bool converts = source_dtype != compute_dtype_;
  void* landing = converts ? load_scratch_.at_least(*this, source_bytes) : table.data();
  expect(cudaMemcpyAsync(landing, source, source_bytes, cudaMemcpyHostToDevice, stream_), "load_table");
  if (converts) {
    expect(kernels::convert(element_of_weights(source_dtype), landing, element(), table.data(), numel, stream_),
           "convert");
  }
  return table;
}

void CudaBackend::fill_random_on_device(const RandomBlock& block, void* out) {
  auto* at = static_cast<std::byte*>(out);
  for (const RandomBlock::Run& run : block.runs) {
    const kernels::RandomBlock part{.key = block.key,
                                    .centre = block.centre,
                                    .reach = block.reach,
                                    .first_row = run.first_row,
                                    .rows = run.rows,
                                    .first_col = block.first_col,
                                    .cols = block.cols,
                                    .whole_cols = block.whole_cols};
    expect(kernels::fill_random(part, element_of_weights(block.dtype), element(), at, stream_), "fill_random");
    at += static_cast<size_t>(run.rows * block.cols) * dtype_bytes(compute_dtype_);
  }
}

Buffer CudaBackend::random_table(const RandomBlock& block) {
  Buffer table = allocate(static_cast<size_t>(block.elements()) * dtype_bytes(compute_dtype_));
  fill_random_on_device(block, table.data());
  return table;
}

}  // namespace optserve::backend
