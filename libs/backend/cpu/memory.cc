#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "base/error.h"
#include "base/machine.h"

namespace optserve::backend {
namespace {

constexpr size_t kAlignment = 64;  // a cache line

int thread_count(int wanted) {
  if (wanted > 0) return wanted;
  return usable_cores();
}

}  // namespace

CpuBackend::CpuBackend(const BackendOptions& options)
    : kernels_(widest_kernels()),
      fp8_activations_(options.fp8_activations),
      pool_(thread_count(options.threads)),
      scratch_(static_cast<size_t>(pool_.threads())) {
  if (options.compute_dtype != DType::kF32) {
    throw Error("the CPU backend computes in F32, not in " + std::string(dtype_name(options.compute_dtype)));
  }
  if (options.device.index != 0) throw Error("there is no device cpu:" + std::to_string(options.device.index));
}

std::string CpuBackend::description() const {
  const char* unit = pool_.threads() == 1 ? " thread" : " threads";
  return "cpu, " + std::to_string(pool_.threads()) + unit + (&kernels_ == avx2_kernels() ? ", AVX2" : ", no AVX2");
}

Buffer CpuBackend::allocate(size_t bytes) {
  // Whole cache lines, and at least one, so that a buffer without elements still has an address.
  const size_t rounded = bytes / kAlignment * kAlignment + kAlignment;
  void* data = rounded < bytes ? nullptr : std::aligned_alloc(kAlignment, rounded);
  if (data == nullptr) throw Error("no memory for " + std::to_string(bytes) + " bytes on the CPU");
  return Buffer(data, bytes, device(), std::free);
}

void CpuBackend::upload(Tensor destination, const void* source) {
  if (const size_t bytes = destination.bytes(); bytes != 0) std::memcpy(destination.raw(), source, bytes);
}

void CpuBackend::download(void* destination, const Tensor& source) {
  if (const size_t bytes = source.bytes(); bytes != 0) std::memcpy(destination, source.raw(), bytes);
}

void CpuBackend::fill_zero(Tensor x) {
  if (const size_t bytes = x.bytes(); bytes != 0) std::memset(x.raw(), 0, bytes);
}

void CpuBackend::do_copy(const Tensor& source, Tensor destination) {
  const size_t element = dtype_bytes(source.dtype());
  const int64_t width = source.dim(source.ndim() - 1);
  const int64_t rows = source.numel() / width;
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(
        static_cast<std::byte*>(destination.raw()) + static_cast<size_t>(row * destination.row_stride()) * element,
        static_cast<const std::byte*>(source.raw()) + static_cast<size_t>(row * source.row_stride()) * element,
        static_cast<size_t>(width) * element);
  }
}

Buffer CpuBackend::load_table(const void* source, DType source_dtype, int64_t numel) {
  Buffer table = allocate(static_cast<size_t>(numel) * sizeof(float));
  convert_to_f32(source, source_dtype, static_cast<float*>(table.data()), static_cast<size_t>(numel));
  return table;
}

Buffer CpuBackend::random_table(const RandomBlock& block) {
  std::vector<std::byte> values(static_cast<size_t>(block.elements()) * dtype_bytes(block.dtype));
  fill_random(block, values);
  return load_table(values.data(), block.dtype, block.elements());
}

void CpuBackend::do_gather_rows(const Tensor& x, const Tensor& rows, Tensor out) {
  const int32_t* index = rows.data<int32_t>();
  for (int64_t i = 0; i < rows.dim(0); ++i) {
    check(index[i] >= 0 && index[i] < x.dim(0), "gather_rows: row outside x");
    std::memcpy(out.row<float>(i), x.row<float>(index[i]), static_cast<size_t>(x.dim(1)) * sizeof(float));
  }
}

void CpuBackend::do_interleave_ranks(const Tensor& in, Tensor out) {
  const int64_t world = in.dim(0), n = in.dim(1), local = in.dim(2);
  const float* block = in.data<float>();
  for (int64_t rank = 0; rank < world; ++rank) {
    for (int64_t row = 0; row < n; ++row, block += local) {
      std::memcpy(out.row<float>(row) + rank * local, block, static_cast<size_t>(local) * sizeof(float));
    }
  }
}

void CpuBackend::capture_or_run(uint64_t /*key*/, const std::function<void()>& body) { body(); }

}  // namespace optserve::backend
