#include "backend/cuda/linear_tuner.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "backend/cuda/cuda_check.h"
#include "backend/cuda/cuda_memory.h"
#include "base/check.h"
#include "base/error.h"
#include "kernels/elementwise.h"

namespace optserve::cuda {

namespace {

constexpr size_t kWorkspaceBytes = 64 << 20;
constexpr size_t kStandInBytes = 192 << 20;
constexpr int kCandidates = 16;
constexpr int kCalls = 8;  // of one timing
constexpr int kTimings = 5;
constexpr int64_t kInvariantRowsMax = 300;  // of what is compared, no whole number of tiles

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

cublasLtMatrixLayout_t make_layout(cudaDataType_t type, int64_t rows, int64_t cols, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  expect(cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), stride),
         "cublasLtMatrixLayoutCreate");
  return layout;
}

cublasLtEpilogue_t epilogue_of(const LinearCall& call) {
  if (call.bias != nullptr) return call.relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
  return call.relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT;
}

Error no_way(const LinearCall& call) {
  return Error("no way to multiply " + std::to_string(call.rows) + " rows by [" + std::to_string(call.out) + ", " +
               std::to_string(call.in) + "]");
}

// "NVIDIA H200" as part of a file's name.
std::string file_name_part(const std::string& text) {
  std::string part;
  for (char c : text) part += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '-';
  return part;
}

}  // namespace

// cuBLASLt counts by columns, so it sees y^T = W x^T: [out, rows] = [in, out]^T [in, rows].
struct LinearTuner::Layouts {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;

  explicit Layouts(const LinearCall& call) {
    const cudaDataType_t in_type = data_type(call.element), out_type = call.out_f32 ? CUDA_R_32F : in_type;
    expect(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = epilogue_of(call);
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (call.bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias);
    weight = make_layout(in_type, call.in, call.out, call.in);
    x = make_layout(in_type, call.in, call.rows, call.x_stride);
    y = make_layout(out_type, call.out, call.rows, call.y_stride);
  }
  ~Layouts() {
    (void)cublasLtMatrixLayoutDestroy(weight);
    (void)cublasLtMatrixLayoutDestroy(x);
    (void)cublasLtMatrixLayoutDestroy(y);
    (void)cublasLtMatmulDescDestroy(product);
  }
  Layouts(const Layouts&) = delete;
  Layouts& operator=(const Layouts&) = delete;

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    expect(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }
};

LinearTuner::LinearTuner(cudaStream_t stream, int multiprocessors, Device device, const LinearTunerOptions& options)
    : stream_(stream),
      multiprocessors_(multiprocessors),
      batch_invariant_(options.batch_invariant),
      device_(device),
      workspace_(device_buffer(kWorkspaceBytes, device)),
      stand_ins_(device_buffer(kStandInBytes, device)) {
  expect(cublasLtCreate(&handle_), "cublasLtCreate");
  expect(cudaEventCreate(&begin_), "cudaEventCreate");
  expect(cudaEventCreate(&end_), "cudaEventCreate");
  // Random values: products of zeros draw less power and run faster than real ones.
  const kernels::RandomBlock values{.key = 1,
                                    .reach = 0.05f,
                                    .rows = 1,
                                    .cols = int64_t{kStandInBytes} / 2,
                                    .whole_cols = int64_t{kStandInBytes} / 2};
  expect(kernels::fill_random(values, kernels::Element::kF16, kernels::Element::kF16, stand_ins_.data(), stream_),
         "fill_random");
  if (options.cache_folder.empty()) return;
  std::filesystem::create_directories(options.cache_folder);
  cache_path_ = options.cache_folder + "/linear-" + (batch_invariant_ ? "invariant-" : "") +
                file_name_part(options.gpu_name) + "-cublaslt-" + std::to_string(cublasLtGetVersion()) + ".txt";
  load_choices();
}

LinearTuner::~LinearTuner() {
  if (begin_ != nullptr) (void)cudaEventDestroy(begin_);
  if (end_ != nullptr) (void)cudaEventDestroy(end_);
  if (handle_ != nullptr) (void)cublasLtDestroy(handle_);
}

LinearTuner::Key LinearTuner::key_of(const LinearCall& call) const {
  const auto up_to = [&](int64_t multiple) { return (call.rows + multiple - 1) / multiple * multiple; };
  Key key;
  key.flags = static_cast<int32_t>(call.element) | (call.out_f32 ? 4 : 0) | (call.relu ? 8 : 0) |
              (call.bias != nullptr ? 16 : 0);
  key.in = call.in;
  key.out = call.out;
  key.rows = call.rows <= 8 ? call.rows : call.rows <= 128 ? up_to(8) : call.rows <= 1024 ? up_to(64) : up_to(1024);
  const size_t in_bytes = element_bytes(call.element), out_bytes = call.out_f32 ? 4 : in_bytes;
  if (batch_invariant_) key.rows = 0;
  const uint32_t least = std::min({alignment_of(call.x, static_cast<size_t>(call.x_stride) * in_bytes),
                                   alignment_of(call.weight, static_cast<size_t>(call.in) * in_bytes),
                                   alignment_of(call.y, static_cast<size_t>(call.y_stride) * out_bytes)});
  key.alignment = static_cast<int32_t>(least);
  return key;
}

kernels::SkinnyLinearArgs LinearTuner::skinny_args(const LinearCall& call) {
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

std::vector<LinearTuner::Choice> LinearTuner::candidates(const LinearCall& call, const Layouts& layouts,
                                                         int32_t alignment_bytes) const {
  cublasLtMatmulPreference_t preference = nullptr;
  expect(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    expect(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
           "cublasLtMatmulPreferenceSetAttribute");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  // Parts of a sum over a cut K are added in fp32, in one order; where a row's bits must not depend on the others there
  // are no parts, since how many there are may.
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
  (void)cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) expect(status, "cublasLtMatmulAlgoGetHeuristic");
  std::vector<Choice> choices;
  for (int i = 0; i < found_count; ++i) {
    const auto& result = found[static_cast<size_t>(i)];
    if (result.state == CUBLAS_STATUS_SUCCESS) choices.push_back({false, result.algo});
  }
  if (!batch_invariant_ && kernels::can_skinny_linear(skinny_args(call))) choices.push_back({true, {}});
  return choices;
}

bool LinearTuner::try_skinny(const LinearCall& call) const {
  const kernels::SkinnyLinearArgs args = skinny_args(call);
  if (!kernels::can_skinny_linear(args)) return false;
  expect(kernels::skinny_linear(args, multiprocessors_, stream_), "skinny_linear");
  return true;
}

bool LinearTuner::try_run(const LinearCall& call, const Layouts& layouts, const Choice& choice) const {
  if (choice.skinny) return try_skinny(call);
  const float one = 1, zero = 0;
  return cublasLtMatmul(handle_, layouts.product, &one, call.weight, layouts.weight, call.x, layouts.x, &zero, call.y,
                        layouts.y, call.y, layouts.y, &choice.algorithm, workspace_.data(), kWorkspaceBytes,
                        stream_) == CUBLAS_STATUS_SUCCESS;
}

bool LinearTuner::enqueue_row_of_calls(const LinearCall& call, const Layouts& layouts, const Choice& choice) const {
  const size_t bytes = static_cast<size_t>(call.in * call.out) * element_bytes(call.element);
  const size_t aligned = (bytes + 255) / 256 * 256;
  for (size_t i = 0; i < kCalls; ++i) {
    LinearCall one = call;
    const size_t offset = i * aligned;
    if (offset + bytes <= stand_ins_.bytes()) one.weight = static_cast<const std::byte*>(stand_ins_.data()) + offset;
    if (!try_run(one, layouts, choice)) return false;
  }
  return true;
}

float LinearTuner::time_of(const LinearCall& call, const Layouts& layouts, const Choice& choice) {
  if (!try_run(call, layouts, choice)) return -1;
  // A recorded graph: started one by one, small products would time the host.
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  expect(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  const bool ran = enqueue_row_of_calls(call, layouts, choice);
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
  if (!ran || ended != cudaSuccess || cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess) {
    (void)cudaGetLastError();
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
    return -1;
  }
  std::array<float, kTimings + 1> times{};
  for (float& time : times) {
    expect(cudaEventRecord(begin_, stream_), "cudaEventRecord");
    expect(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
    expect(cudaEventRecord(end_, stream_), "cudaEventRecord");
    expect(cudaEventSynchronize(end_), "timing of a product");
    expect(cudaEventElapsedTime(&time, begin_, end_), "cudaEventElapsedTime");
    time *= 1000.0f / kCalls;
  }
  (void)cudaGraphExecDestroy(exec);
  (void)cudaGraphDestroy(graph);
  std::sort(times.begin() + 1, times.end());  // the first one warms up
  return times[1 + kTimings / 2];
}

LinearTuner::Choice LinearTuner::choose(const LinearCall& call, const Layouts& layouts) {
  Choice best;
  float best_time = -1;
  for (const Choice& choice : candidates(call, layouts, key_of(call).alignment)) {
    const float time = time_of(call, layouts, choice);
    if (time >= 0 && (best_time < 0 || time < best_time)) {
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
    if (!try_run(one, layouts, choice)) return false;
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
      double cost = 0;  // of logarithms: each number of rows counts alike
      bool runs = true;
      for (size_t i = 0; i < kRows.size() && runs; ++i) {
        one.rows = kRows[i];
        const float time = time_of(one, Layouts(one), choice);
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
  const Key key = key_of(call);
  auto known = choices_.find(key);
  if (known != choices_.end() && known->second.skinny && try_skinny(call)) return;  // it needs none of the layouts
  const Layouts layouts(call);
  if (known == choices_.end() && may_time) {
    known = choices_.emplace(key, batch_invariant_ ? choose_invariant(call) : choose(call, layouts)).first;
    keep(key, known->second);
  }
  if (known != choices_.end() && try_run(call, layouts, known->second)) return;
  if (batch_invariant_) throw no_way(call);  // another one would give other bits
  // A choice made for other rows, or for another build of the library, may not fit this call.
  for (const Choice& choice : candidates(call, layouts, key_of(call).alignment)) {
    if (try_run(call, layouts, choice)) return;
  }
  throw no_way(call);
}

// One line a choice: flags alignment rows in out, then "skinny" or the algorithm's words in hexadecimal.
void LinearTuner::load_choices() {
  std::ifstream file(cache_path_);
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    Key key;
    Choice choice;
    std::string word;
    if (!(fields >> key.flags >> key.alignment >> key.rows >> key.in >> key.out >> word)) continue;
    choice.skinny = word == "skinny";
    size_t words = 0;
    for (uint64_t& value : choice.algorithm.data) {
      if (choice.skinny || word.size() != 16 || word.find_first_not_of("0123456789abcdef") != std::string::npos) break;
      value = std::stoull(word, nullptr, 16);
      ++words;
      word.clear();
      fields >> word;
    }
    if (choice.skinny || words == std::size(choice.algorithm.data)) choices_[key] = choice;
  }
}

void LinearTuner::keep(const Key& key, const Choice& choice) const {
  if (cache_path_.empty()) return;
  std::ostringstream line;
  line << key.flags << ' ' << key.alignment << ' ' << key.rows << ' ' << key.in << ' ' << key.out;
  if (choice.skinny) line << " skinny";
  char word[24];
  for (uint64_t value : choice.algorithm.data) {
    std::snprintf(word, sizeof word, " %016llx", static_cast<unsigned long long>(value));
    if (!choice.skinny) line << word;
  }
  line << '\n';
  // One write to a file opened for appending: lines of several processes do not mix. A cache that cannot be written is
  // a cache less.
  const int fd = open(cache_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return;
  const std::string text = line.str();
  [[maybe_unused]] const ssize_t written = write(fd, text.data(), text.size());
  close(fd);
}

}  // namespace optserve::cuda
