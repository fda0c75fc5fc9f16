// How long one all-reduce takes among ranks that are processes of one host, measured on rank 0: over shared memory, and
// over TCP with and without a key of the group.
#include <benchmark/benchmark.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "keys/key_pair.h"

namespace optserve::comm {
namespace {

// Makes the communicator of one rank, in its process.
using Maker = std::function<std::unique_ptr<Communicator>(int rank)>;

void all_reduce(benchmark::State& state, int world, int64_t size, const Maker& make) {
  std::vector<pid_t> peers;
  for (int rank = 1; rank < world; ++rank) {
    if (const pid_t pid = fork(); pid == 0) {
      const auto communicator = make(rank);
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
  const auto communicator = make(0);
  std::vector<float> x(static_cast<size_t>(size));
  std::vector<uint8_t> go{1};
  for (auto _ : state) {
    communicator->broadcast_bytes(go, 0);
    for (int i = 0; i < 100; ++i) communicator->all_reduce_sum(Tensor(x.data(), DType::kF32, {size}));
  }
  go[0] = 0;
  communicator->broadcast_bytes(go, 0);
  for (const pid_t pid : peers) waitpid(pid, nullptr, 0);
  state.SetItemsProcessed(state.iterations() * 100);  // all-reduces
}

const SystemClock& clock_of_bench() {
  static const SystemClock clock;
  return clock;
}

void all_reduce_over_processes(benchmark::State& state) {
  const int world = static_cast<int>(state.range(0));
  const ProcessGroupMemory memory = create_process_group_memory(world);
  all_reduce(state, world, state.range(1),
             [&](int rank) { return make_process_communicator(memory, rank, world, 60'000, clock_of_bench()); });
  close(memory.fd);
}
BENCHMARK(all_reduce_over_processes)->ArgsProduct({{2, 4}, {768, 768 * 64, 768 * 2048}})->UseRealTime();

void all_reduce_over_tcp(benchmark::State& state, bool sealed) {
  TcpGroupOptions options;
  options.host = "127.0.0.1";
  options.port = 20'000 + static_cast<int>(getpid() % 20'000);
  options.group = "bench";
  options.world = static_cast<int>(state.range(0));
  if (sealed) options.key = std::make_shared<const keys::SecretKey>(keys::new_secret_key());
  all_reduce(state, options.world, state.range(1), [&](int rank) {
    TcpGroupOptions own = options;
    own.rank = rank;
    return make_tcp_communicator(own, clock_of_bench());
  });
}
BENCHMARK_CAPTURE(all_reduce_over_tcp, clear, false)->ArgsProduct({{2, 4}, {768, 768 * 64, 768 * 2048}})->UseRealTime();
BENCHMARK_CAPTURE(all_reduce_over_tcp, sealed, true)->ArgsProduct({{2, 4}, {768, 768 * 64, 768 * 2048}})->UseRealTime();

}  // namespace
}  // namespace optserve::comm
