#include "backend/cuda/linear_tuner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "backend/cuda/cuda_check.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/lt_objects.h"
#include "base/build_info.h"
#include "base/check.h"
#include "base/error.h"
#include "kernels/elementwise.h"

namespace optserve::backend::cuda {

namespace {

constexpr size_t kStandInBytes = 192 << 20;
constexpr size_t kDequantisedBytes = 32 << 20;  // stays in L2 until it is multiplied
constexpr int kCandidates = 16;
constexpr int kCalls = 8;  // in one measurement
constexpr int kTimings = 7;
constexpr float kWorthwhile = 0.98f;        // a later candidate must be faster by this factor: less is chance
constexpr int64_t kInvariantRowsMax = 300;  // compared by is_invariant(); not a whole number of tiles

cudaDataType_t data_type(kernels::Element element) {
  switch (element) {
    case kernels::Element::kF32:
      return CUDA_R_32F;
    case kernels::Element::kF16:
      return CUDA_R_16F;
    case kernels::Element::kBF16:
      return CUDA_R_16BF;
  }
  check_failed("element type of a product", std::source_location::current());
}

size_t element_bytes(kernels::Element element) { return element == kernels::Element::kF32 ? 4 : 2; }

// The largest power of two up to 16 that divides both.
uint32_t alignment_of(const void* data, size_t stride_bytes) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(data) | stride_bytes | 16;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

// "NVIDIA H200" as part of a file's name.
std::string file_name_part(const std::string& text) {
  std::string part;
  for (char c : text) part += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '-';
  return part;
}

}  // namespace

Error no_way(const LinearCall& call) {
  return Error("no way to multiply " + std::to_string(call.rows) + " rows by [" + std::to_string(call.out) + ", " +
               std::to_string(call.in) + "]");
}

// cuBLASLt counts by columns, so it sees y^T = W x^T: [out, rows] = [in, out]^T [in, rows].
struct LinearTuner::Layouts {
  LtProduct product = make_product();
  LtLayout weight, x, y;

  explicit Layouts(const LinearCall& call) {
    const cudaDataType_t in_type = data_type(call.element), out_type = call.out_f32 ? CUDA_R_32F : in_type;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = epilogue_of(call.bias != nullptr, call.relu);
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (call.bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias);
    weight = make_layout(in_type, call.in, call.out, call.in);
    x = make_layout(in_type, call.in, call.rows, call.x_stride);
    y = make_layout(out_type, call.out, call.rows, call.y_stride);
  }

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    expect(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }
};

namespace {

// Empty, or the file of this device's choices.
std::string choices_path(const LinearTunerOptions& options) {
  if (options.cache_folder.empty()) return {};
  std::filesystem::create_directories(options.cache_folder);
  return options.cache_folder + "/linear-" + (options.batch_invariant ? "invariant-" : "") +
         file_name_part(options.gpu_name) + "-cublaslt-" + std::to_string(cublasLtGetVersion()) + "-build-" +
         build_id() + ".txt";
}

}  // namespace

LinearTuner::LinearTuner(cudaStream_t stream, const kernels::DeviceLimits& limits, Device device,
                         const LinearTunerOptions& options)
    : stream_(stream),
      limits_(limits),
      batch_invariant_(options.batch_invariant),
      device_(device),
      handle_(make_lt_handle()),
      workspace_(device_buffer(kWorkspaceBytes, device)),
      stand_ins_(device_buffer(kStandInBytes, device)),
      dequantised_(device_buffer(options.batch_invariant ? 0 : kDequantisedBytes, device)),
      shared_sums_(device_buffer(options.batch_invariant ? 0 : kernels::wgmma_scratch_bytes(limits), device)),
      begin_(make_event()),
      end_(make_event()),
      choices_(choices_path(options)) {
  // Random values: products of zeros draw less power and run faster than real ones.
  const kernels::RandomBlock values{.key = 1,
                                    .reach = 0.05f,
                                    .rows = 1,
                                    .cols = int64_t{kStandInBytes} / 2,
                                    .whole_cols = int64_t{kStandInBytes} / 2};
  expect(kernels::fill_random(values, kernels::Element::kF16, kernels::Element::kF16, stand_ins_.data(), stream_),
         "fill_random");
  expect(cudaMemsetAsync(shared_sums_.data(), 0, shared_sums_.bytes(), stream_), "cudaMemset");
}

LinearTuner::Key LinearTuner::key_of(const LinearCall& call) const {
  const auto up_to = [&](int64_t multiple) { return (call.rows + multiple - 1) / multiple * multiple; };
  Key key;
  key.flags = static_cast<int32_t>(call.element) | (call.out_f32 ? 4 : 0) | (call.relu ? 8 : 0) |
              (call.bias != nullptr ? 16 : 0) | (static_cast<int32_t>(call.format) << 5) |
              (call.row_major != nullptr ? 1 << 8 : 0);
  key.in = call.in;
  key.out = call.out;
  key.rows = call.rows <= 8 ? call.rows : call.rows <= 128 ? up_to(8) : call.rows <= 1024 ? up_to(64) : up_to(1024);
  const size_t in_bytes = element_bytes(call.element), out_bytes = call.out_f32 ? 4 : in_bytes;
  if (batch_invariant_) key.rows = 0;
  const uint32_t least =
      std::min({alignment_of(call.x, static_cast<size_t>(call.x_stride) * in_bytes),
                alignment_of(call.weight, call.scales == nullptr ? static_cast<size_t>(call.in) * in_bytes : 0),
                alignment_of(call.y, static_cast<size_t>(call.y_stride) * out_bytes)});
  key.alignment = static_cast<int32_t>(least);
  return key;
}

namespace {

kernels::SkinnyLinearArgs skinny_args(const LinearCall& call) {
  return {.element = call.element,
          .out_f32 = call.out_f32,
          .relu = call.relu,
          .x = call.x,
          .x_stride = call.x_stride,
          .weight = call.weight,
          .bias = call.bias,
          .y = call.y,
          .y_stride = call.y_stride,
          .rows = call.rows,
          .in = call.in,
          .out = call.out};
}

size_t bytes_of_weight(const LinearCall& call) {
  if (call.format == kernels::WeightFormat::kPlain) {
    return static_cast<size_t>(call.in * call.out) * element_bytes(call.element);
  }
  return static_cast<size_t>(kernels::packed_bytes(call.format, call.out, call.in));
}

}  // namespace

std::vector<LinearTuner::Choice> LinearTuner::candidates(const LinearCall& call, const Layouts& layouts,
                                                         int32_t alignment_bytes) const {
  const LtPreference preference = make_preference();
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    expect(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
           "cublasLtMatmulPreferenceSetAttribute");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  // If K is cut, the parts of a sum are added in fp32 and in a fixed order. If a row's bits must not depend on the
  // other rows, K is not cut, since the number of parts may depend on them.
  const auto reduction = batch_invariant_ ? CUBLASLT_REDUCTION_SCHEME_NONE : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<uint32_t>(reduction));
  const auto alignment = static_cast<uint32_t>(alignment_bytes);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment);
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found;
  int found_count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, layouts.product, layouts.weight, layouts.x, layouts.y, layouts.y,
                                     preference, kCandidates, found.data(), &found_count);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) expect(status, "cublasLtMatmulAlgoGetHeuristic");
  std::vector<Choice> choices;
  for (int i = 0; i < found_count; ++i) {
    const auto& result = found[static_cast<size_t>(i)];
    if (result.state == CUBLAS_STATUS_SUCCESS) choices.push_back({.algorithm = result.algo});
  }
  if (!batch_invariant_ && kernels::can_skinny_linear(skinny_args(call), limits_)) {
    choices.push_back({.way = Choice::Way::kSkinny});
  }
  return choices;
}

bool LinearTuner::try_skinny(const LinearCall& call) const {
  const kernels::SkinnyLinearArgs args = skinny_args(call);
  if (!kernels::can_skinny_linear(args, limits_)) return false;
  expect(kernels::skinny_linear(args, limits_, stream_), "skinny_linear");
  return true;
}

bool LinearTuner::try_plain(const LinearCall& call, const Layouts& layouts, const Choice& choice) const {
  if (choice.way == Choice::Way::kSkinny) return try_skinny(call);
  const float one = 1, zero = 0;
  return cublasLtMatmul(handle_, layouts.product, &one, call.weight, layouts.weight, call.x, layouts.x, &zero, call.y,
                        layouts.y, call.y, layouts.y, &choice.algorithm, workspace_.data(), kWorkspaceBytes,
                        stream_) == CUBLAS_STATUS_SUCCESS;
}

// Weights that are too large for the stand-ins are themselves several times as large as a cache.
bool LinearTuner::enqueue_row_of_calls(const LinearCall& call, const TryRun& try_run) const {
  const size_t aligned = (bytes_of_weight(call) + 255) / 256 * 256;
  const size_t count = stand_ins_.bytes() / std::max<size_t>(aligned, 1);
  for (size_t i = 0; i < kCalls; ++i) {
    LinearCall one = call;
    if (count > 0) one.weight = static_cast<const std::byte*>(stand_ins_.data()) + i % count * aligned;
    if (!try_run(one)) return false;
  }
  return true;
}

float LinearTuner::time_of(const LinearCall& call, const TryRun& try_run) {
  if (!try_run(call)) return -1;
  // The calls are recorded in a graph: started one by one, small products would measure the host.
  expect(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  bool ran = false;
  try {
    ran = enqueue_row_of_calls(call, try_run);
  } catch (...) {  // the stream must not stay in the recording
    cudaGraph_t dropped = nullptr;
    (void)cudaStreamEndCapture(stream_, &dropped);
    const Graph owner(dropped);
    throw;
  }
  cudaGraph_t recorded = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &recorded);
  const Graph graph(recorded);
  if (!ran || ended != cudaSuccess) {
    (void)cudaGetLastError();
    return -1;
  }
  const GraphExec exec = instantiate(graph);
  std::array<float, kTimings + 1> times{};
  for (float& time : times) {
    expect(cudaEventRecord(begin_, stream_), "cudaEventRecord");
    expect(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
    expect(cudaEventRecord(end_, stream_), "cudaEventRecord");
    expect(cudaEventSynchronize(end_), "timing of a product");
    expect(cudaEventElapsedTime(&time, begin_, end_), "cudaEventElapsedTime");
    time *= 1000.0f / kCalls;
  }
  std::sort(times.begin() + 1, times.end());  // the first one warms up
  return times[1 + kTimings / 2];
}

LinearTuner::Choice LinearTuner::fastest(const LinearCall& call, const std::vector<Choice>& choices,
                                         const std::function<bool(const LinearCall&, const Choice&)>& try_run) {
  Choice best;
  float best_time = -1;
  for (const Choice& choice : choices) {
    const float time = time_of(call, [&](const LinearCall& one) { return try_run(one, choice); });
    if (time >= 0 && (best_time < 0 || time < best_time * kWorthwhile)) {
      best = choice;
      best_time = time;
    }
  }
  if (best_time < 0) throw no_way(call);
  return best;
}

// Whether rows among others have the bits that they have alone, for some numbers of rows around the sizes of tiles.
bool LinearTuner::is_invariant(const LinearCall& call, const Choice& choice) {
  const size_t element = element_bytes(call.element), out_bytes = call.out_f32 ? 4 : element;
  const auto x_bytes = static_cast<size_t>(call.in) * element, y_bytes = static_cast<size_t>(call.out) * out_bytes;
  constexpr std::array<int64_t, 8> kRows = {1, 2, 8, 17, 64, 100, 129, kInvariantRowsMax};
  const Buffer x = device_buffer(x_bytes * kInvariantRowsMax, device_);
  const Buffer y = device_buffer(y_bytes * kInvariantRowsMax, device_);
  const kernels::RandomBlock values{
      .key = 2, .reach = 1.0f, .rows = kInvariantRowsMax, .cols = call.in, .whole_cols = call.in};
  expect(kernels::fill_random(values, call.element, call.element, x.data(), stream_), "fill_random");
  LinearCall one = call;
  one.x = x.data(), one.x_stride = call.in, one.y = y.data(), one.y_stride = call.out;
  std::vector<std::byte> expected(y_bytes * kInvariantRowsMax), found(expected.size());
  const auto product = [&](int64_t rows, std::vector<std::byte>& out) {
    one.rows = rows;
    const Layouts layouts(one);
    if (!try_plain(one, layouts, choice)) return false;
    expect(cudaMemcpyAsync(out.data(), y.data(), y_bytes * static_cast<size_t>(rows), cudaMemcpyDeviceToHost, stream_),
           "download");
    expect(cudaStreamSynchronize(stream_), "a product");
    return true;
  };
  if (!product(kInvariantRowsMax, expected)) return false;
  return std::ranges::all_of(kRows, [&](int64_t rows) {
    return product(rows, found) && std::memcmp(found.data(), expected.data(), y_bytes * static_cast<size_t>(rows)) == 0;
  });
}

LinearTuner::Choice LinearTuner::choose_invariant(const LinearCall& call) {
  constexpr std::array<int64_t, 3> kRows = {1, 64, 512};
  const size_t element = element_bytes(call.element);
  const Buffer x = device_buffer(static_cast<size_t>(call.in * kRows.back()) * element, device_);
  const Buffer y = device_buffer(static_cast<size_t>(call.out * kRows.back()) * 4, device_);
  LinearCall one = call;
  one.x = x.data(), one.x_stride = call.in, one.y = y.data(), one.y_stride = call.out;
  Choice best;
  double best_cost = 0;
  bool found = false;
  for (const int64_t proposed_for : kRows) {
    one.rows = proposed_for;
    for (const Choice& choice : candidates(one, Layouts(one), key_of(call).alignment)) {
      double cost = 0;  // sum of logarithms, so that each number of rows has the same weight
      bool runs = true;
      for (size_t i = 0; i < kRows.size() && runs; ++i) {
        one.rows = kRows[i];
        const Layouts layouts(one);
        const float time = time_of(one, [&](const LinearCall& call_) { return try_plain(call_, layouts, choice); });
        runs = time > 0;
        cost += runs ? std::log(static_cast<double>(time)) : 0;
      }
      if (!runs || (found && cost >= best_cost) || !is_invariant(one, choice)) continue;
      best = choice, best_cost = cost, found = true;
    }
  }
  if (!found) throw no_way(call);
  return best;
}

void LinearTuner::run(const LinearCall& call, bool may_time) {
  if (call.rows == 0 || call.out == 0) return;
  check(!(call.out_f32 && call.bias != nullptr && call.element != kernels::Element::kF32),
        "linear: a bias needs an output of its type");
  call.format == kernels::WeightFormat::kPlain ? run_plain(call, may_time) : run_quantised(call, may_time);
}

void LinearTuner::run_plain(const LinearCall& call, bool may_time) {
  const Key key = key_of(call);
  const Choice* known = choices_.find(key);
  if (known != nullptr && known->way == Choice::Way::kSkinny && try_skinny(call)) return;  // it needs no layouts
  const Layouts layouts(call);
  const auto try_one = [&](const LinearCall& one, const Choice& choice) { return try_plain(one, layouts, choice); };
  if (known == nullptr && may_time) {
    known = &choices_.keep(key, batch_invariant_ ? choose_invariant(call)
                                                 : fastest(call, candidates(call, layouts, key.alignment), try_one));
  }
  if (known != nullptr && try_one(call, *known)) return;
  if (batch_invariant_) throw no_way(call);  // another one would give other bits
  // A choice made for other rows, or for another build of the library, may not fit this call.
  for (const Choice& choice : candidates(call, layouts, key.alignment)) {
    if (try_one(call, choice)) return;
  }
  throw no_way(call);
}

}  // namespace optserve::backend::cuda
