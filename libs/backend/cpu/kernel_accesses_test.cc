// ThreadSanitizer finds two threads that write the same output, although it does not see into the kernels.
#include "backend/cpu/kernel_accesses.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace optserve::backend {
namespace kernel_accesses_test {

#ifdef __SANITIZE_THREAD__
constexpr bool kHasThreadSanitizer = true;
#else
constexpr bool kHasThreadSanitizer = false;
#endif

constexpr int64_t kRows = 3, kIn = 32, kOut = 48;

// Operations that write `out`, [kRows, kOut], from data of their own.
struct Operation {
  const char* name;
  std::function<void(float* out)> run;
};

Tensor matrix(std::vector<float>& values, int64_t cols) { return {values.data(), DType::kF32, {kRows, cols}, {}}; }

std::vector<Operation> operations() {
  const auto linear = [](float* out) {
    CpuBackend backend({.threads = 1});
    std::vector<float> x(kRows * kIn, 1), weight(kOut * kIn, 1);
    const quant::Weight packed = backend.load_weight({quant::QuantFormat::kF32, kOut, kIn, weight.data()});
    backend.linear(matrix(x, kIn), packed, {}, Activation::kNone, Tensor(out, DType::kF32, {kRows, kOut}, {}));
  };
  const auto norm = [](float* out) {
    CpuBackend backend({.threads = 1});
    std::vector<float> x(kRows * kOut, 1), gamma(kOut, 1), beta(kOut, 0);
    backend.layer_norm(matrix(x, kOut), Tensor(gamma.data(), DType::kF32, {kOut}, {}),
                       Tensor(beta.data(), DType::kF32, {kOut}, {}), Tensor(out, DType::kF32, {kRows, kOut}, {}));
  };
  const auto add = [](float* out) {
    CpuBackend backend({.threads = 1});
    std::vector<float> x(kRows * kOut, 1);
    backend.add_bias_residual(matrix(x, kOut), {}, Tensor(out, DType::kF32, {kRows, kOut}, {}));
  };
  return {{"linear", linear}, {"layer_norm", norm}, {"add_bias_residual", add}};
}

// Ends with ThreadSanitizer's status, if TSAN_OPTIONS has halt_on_error=1 as in tests/run.
void run_in_two_threads(const Operation& operation) {
  std::vector<float> out(kRows * kOut);
  std::thread first(operation.run, out.data());
  std::thread second(operation.run, out.data());
  first.join();
  second.join();
}

TEST(KernelAccessesDeathTest, ARaceBetweenKernelsIsFound) {
  if (!kHasThreadSanitizer) GTEST_SKIP() << "only ThreadSanitizer is told";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const Operation& operation : operations()) {
    SCOPED_TRACE(operation.name);
    EXPECT_EXIT(run_in_two_threads(operation), testing::ExitedWithCode(66), "data race");
  }
}

}  // namespace kernel_accesses_test
}  // namespace optserve::backend
