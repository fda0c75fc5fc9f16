// What the kernels read and write, told to ThreadSanitizer. The kernels themselves are compiled without it, since it
// checks every single load of their inner loops, which makes tests of whole systems many times slower. Their callers
// therefore name the ranges instead, and a race between two threads is found as before. Weights are not named: nothing
// writes them after they are loaded. Without ThreadSanitizer these functions do nothing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cpu/kernels.h"

#ifdef __SANITIZE_THREAD__
extern "C" void __tsan_read_range(void* address, unsigned long bytes);
extern "C" void __tsan_write_range(void* address, unsigned long bytes);
#endif

namespace optserve::backend {

// `count` elements at `first` are read.
template <class Element>
void will_read([[maybe_unused]] const Element* first, [[maybe_unused]] int64_t count) {
#ifdef __SANITIZE_THREAD__
  __tsan_read_range(const_cast<Element*>(first), static_cast<size_t>(count) * sizeof(Element));
#endif
}

// `count` elements at `first` are written.
template <class Element>
void will_write([[maybe_unused]] Element* first, [[maybe_unused]] int64_t count) {
#ifdef __SANITIZE_THREAD__
  __tsan_write_range(first, static_cast<size_t>(count) * sizeof(Element));
#endif
}

// What a kernel does with these panels of the product.
inline void will_multiply(const LinearProduct& product, int64_t first_panel, int64_t last_panel) {
  const int64_t begin = first_panel * kPanelWidth, end = std::min(product.out, last_panel * kPanelWidth);
  for (int64_t row = 0; row < product.rows; ++row) {
    will_read(product.x + row * product.x_stride, product.in);
    will_write(product.y + row * product.y_stride + begin, end - begin);
  }
}

}  // namespace optserve::backend
