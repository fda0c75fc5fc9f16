// What the backend tests share: the list of backends under test, arrays on their device, seeded random input,
// tolerances. Oracles compute in double from the values that the device really holds, after rounding to its type.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace optserve::backend {

struct BackendCase {
  std::string name;
  BackendOptions options;
  bool batch_invariant = false;  // a row's bits do not depend on the other rows of a call
};

// Those of the CPU or those of a GPU; one of two files implements this.
std::vector<BackendCase> backends_under_test();

inline std::string case_name(const testing::TestParamInfo<BackendCase>& info) { return info.param.name; }

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class BackendTest : public testing::TestWithParam<BackendCase> {
 protected:
  BackendTest() : backend_(make_backend(GetParam().options)), seed_(std::random_device{}()), random_(seed_) {
    RecordProperty("seed", std::to_string(seed_));
  }
  ~BackendTest() override {
    if (HasFailure()) std::printf("seed %u\n", seed_);
  }

  // Elements of one type on the device, and their host values.
  struct Array {
    Backend* backend = nullptr;
    Buffer buffer;
    Tensor view;

    operator const Tensor&() const { return view; }  // NOLINT: reads as the tensor in calls
    std::vector<float> values() const {
      std::vector<std::byte> bytes(view.bytes());
      backend->download(bytes.data(), view);
      std::vector<float> result(static_cast<size_t>(view.numel()));
      convert_to_f32(bytes.data(), view.dtype(), result.data(), result.size());
      return result;
    }
    std::vector<int32_t> ints() const {
      std::vector<int32_t> result(static_cast<size_t>(view.numel()));
      backend->download(result.data(), view);
      return result;
    }
  };

  Array array(const std::vector<float>& values, std::initializer_list<int64_t> shape, DType dtype) {
    std::vector<std::byte> bytes(values.size() * dtype_bytes(dtype));
    convert_from_f32(values.data(), dtype, bytes.data(), values.size());
    Array result{backend_.get(), backend_->allocate(bytes.size()), {}};
    result.view = result.buffer.view(dtype, shape);
    backend_->upload(result.view, bytes.data());
    return result;
  }
  Array array(const std::vector<float>& values, std::initializer_list<int64_t> shape) {
    return array(values, shape, backend_->compute_dtype());
  }
  Array ints(const std::vector<int32_t>& values, std::initializer_list<int64_t> shape) {
    Array result{backend_.get(), backend_->allocate(values.size() * sizeof(int32_t)), {}};
    result.view = result.buffer.view(DType::kI32, shape);
    backend_->upload(result.view, values.data());
    return result;
  }
  Array random(std::initializer_list<int64_t> shape, float scale = 1) {
    return array(normal(count(shape), scale), shape);
  }
  // Filled with NaN, so that an element that is not written shows.
  Array poisoned(std::initializer_list<int64_t> shape) { return array(std::vector<float>(count(shape), kNan), shape); }
  Array poisoned_f32(std::initializer_list<int64_t> shape) {
    return array(std::vector<float>(count(shape), kNan), shape, DType::kF32);
  }

  std::vector<float> normal(size_t n, float scale = 1) {
    std::normal_distribution<float> distribution(0, scale);
    std::vector<float> values(n);
    for (float& value : values) value = distribution(random_);
    return values;
  }
  int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }

  static size_t count(std::initializer_list<int64_t> shape) {
    size_t product = 1;
    for (const int64_t size : shape) product *= static_cast<size_t>(size);
    return product;
  }

  // Half the distance between 1 and the next number of the compute type.
  double epsilon() const {
    switch (backend_->compute_dtype()) {
      case DType::kF16:
        return 0x1p-11;
      case DType::kBF16:
        return 0x1p-8;
      default:
        return 0x1p-24;
    }
  }

  // Expects `found` within `roundings` roundings of a number as large as `magnitude`. Near zero, fp16 numbers are 2^-24
  // apart.
  void expect_near(float found, double expected, double magnitude, double roundings, const std::string& where) {
    const double least = backend_->compute_dtype() == DType::kF16 ? 0x1p-25 : 1e-30;
    EXPECT_NEAR(found, expected, roundings * (epsilon() * magnitude + least)) << where << ", seed " << seed_;
  }

  std::unique_ptr<Backend> backend_;
  unsigned seed_;
  std::mt19937 random_;
};

inline std::string at(int64_t row, int64_t column) {
  return "at [" + std::to_string(row) + ", " + std::to_string(column) + "]";
}

}  // namespace optserve::backend
