// How long one all-reduce takes among ranks that are processes of one host, measured on rank 0.
#include <benchmark/benchmark.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/communicator.h"

namespace optserve::comm {
namespace {

void all_reduce_over_processes(benchmark::State& state) {
  const int world = static_cast<int>(state.range(0));
  const auto size = state.range(1);
  const ProcessGroupMemory memory = create_process_group_memory(world);
  const SystemClock clock;
  std::vector<pid_t> peers;
  for (int rank = 1; rank < world; ++rank) {
    if (const pid_t pid = fork(); pid == 0) {
      const auto communicator = make_process_communicator(memory, rank, world, 60'000, clock);
      std::vector<float> x(static_cast<size_t>(size));
      std::vector<uint8_t> go;
      for (communicator->broadcast_bytes(go, 0); go[0] != 0; communicator->broadcast_bytes(go, 0)) {
        for (int i = 0; i < 100; ++i) communicator->all_reduce_sum(Tensor(x.data(), DType::kF32, {size}));
      }
      _exit(0);
    } else {
      peers.push_back(pid);
    }
  }
  const auto communicator = make_process_communicator(memory, 0, world, 60'000, clock);
  std::vector<float> x(static_cast<size_t>(size));
  std::vector<uint8_t> go{1};
  for (auto _ : state) {
    communicator->broadcast_bytes(go, 0);
    for (int i = 0; i < 100; ++i) communicator->all_reduce_sum(Tensor(x.data(), DType::kF32, {size}));
  }
  go[0] = 0;
  communicator->broadcast_bytes(go, 0);
  for (const pid_t pid : peers) waitpid(pid, nullptr, 0);
  close(memory.fd);
  state.SetItemsProcessed(state.iterations() * 100);  // all-reduces
}
BENCHMARK(all_reduce_over_processes)->ArgsProduct({{2, 4}, {768, 768 * 64, 768 * 2048}})->UseRealTime();

}  // namespace
}  // namespace optserve::comm
