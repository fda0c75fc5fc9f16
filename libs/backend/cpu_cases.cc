#include "backend/backend_fixture.h"

namespace optserve::backend {

std::vector<BackendCase> backends_under_test() {
  return {{"cpu_1_thread", {.threads = 1}, true}, {"cpu_3_threads", {.threads = 3}, true}};
}

}  // namespace optserve::backend
