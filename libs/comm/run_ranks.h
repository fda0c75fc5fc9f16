// For tests: runs body(communicator) once for each rank of a group. The ranks are threads, or forked processes that
// share memory or talk over TCP.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "keys/key_pair.h"

namespace optserve::comm {

enum class RankKind { kSolo, kThreads, kProcesses, kTcp, kSealedTcp };

inline std::string rank_kind_name(RankKind kind) {
  static constexpr const char* kNames[] = {"Solo", "Threads", "Processes", "Tcp", "SealedTcp"};
  return kNames[static_cast<size_t>(kind)];
}

using RankBody = std::function<void(Communicator&)>;

// An exception on one rank aborts the group and fails the test.
inline void run_rank_threads(int world, const RankBody& body) {
  auto communicators = make_thread_communicators(world);
  std::vector<std::thread> threads;
  for (auto& communicator : communicators) {
    threads.emplace_back([&body, &communicator] {
      try {
        body(*communicator);
      } catch (const std::exception& e) {
        communicator->abort(e.what());
        ADD_FAILURE() << "rank " << communicator->rank() << ": " << e.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// The clock of the communicators in all tests that do not use a clock of their own.
inline const Clock& system_clock() {
  static const SystemClock clock;
  return clock;
}

// Makes the communicator of one rank, in its process.
using RankMaker = std::function<std::unique_ptr<Communicator>(int rank)>;

// Returns the exit status of each rank: 0, 1 after a failed expectation, 2 after an exception, 128 + n after signal n.
// Call it before the test program starts threads of its own.
inline std::vector<int> fork_ranks_with(int world, const RankMaker& make, const RankBody& body) {
  std::vector<pid_t> pids;
  for (int rank = 0; rank < world; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      int status = 0;
      try {
        body(*make(rank));
        status = testing::Test::HasFailure() ? 1 : 0;
      } catch (const std::exception& e) {
        std::fprintf(stderr, "rank %d: %s\n", rank, e.what());
        status = 2;
      }
      std::fflush(nullptr);
      _exit(status);
    }
    pids.push_back(pid);
  }
  std::vector<int> statuses;
  for (const pid_t pid : pids) {
    int status = 0;
    waitpid(pid, &status, 0);
    statuses.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  return statuses;
}

// A port of 127.0.0.1 that nothing uses at this moment, below those that Linux takes for outgoing connections.
inline int free_port() {
  std::random_device entropy;
  std::uniform_int_distribution<int> any(30'000, 32'000);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bool is_bound = false;
  for (int attempt = 0; attempt < 100 && !is_bound; ++attempt) {
    address.sin_port = htons(static_cast<uint16_t>(any(entropy)));
    is_bound = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  close(fd);
  EXPECT_TRUE(is_bound);
  return ntohs(address.sin_port);
}

inline TcpGroupOptions tcp_options(int port, int rank, int world, int timeout_ms) {
  TcpGroupOptions options;
  options.host = "127.0.0.1";
  options.port = port;
  options.group = "test";
  options.rank = rank;
  options.world = world;
  options.timeout_ms = timeout_ms;
  return options;
}

// The same with a key of the group.
inline TcpGroupOptions sealed_options(int port, int rank, int world, int timeout_ms) {
  static const auto key = std::make_shared<const keys::SecretKey>(keys::new_secret_key());
  TcpGroupOptions options = tcp_options(port, rank, world, timeout_ms);
  options.key = key;
  return options;
}

// The same for `kind` kProcesses, kTcp or kSealedTcp.
inline std::vector<int> fork_ranks(RankKind kind, int world, int timeout_ms, const RankBody& body) {
  if (kind == RankKind::kTcp || kind == RankKind::kSealedTcp) {
    const int port = free_port();
    const auto options_of = kind == RankKind::kTcp ? tcp_options : sealed_options;
    sealed_options(port, 0, world, timeout_ms);  // draws the key before the ranks are forked
    const auto make = [=](int rank) {
      return make_tcp_communicator(options_of(port, rank, world, timeout_ms), system_clock());
    };
    return fork_ranks_with(world, make, body);
  }
  const ProcessGroupMemory memory = create_process_group_memory(world);
  const auto make = [&](int rank) {
    return make_process_communicator(memory, rank, world, timeout_ms, system_clock());
  };
  const auto statuses = fork_ranks_with(world, make, body);
  close(memory.fd);
  return statuses;
}

inline void run_ranks(RankKind kind, int world, const RankBody& body) {
  if (kind == RankKind::kSolo) {
    body(*make_solo_communicator());
  } else if (kind == RankKind::kThreads) {
    run_rank_threads(world, body);
  } else {
    EXPECT_EQ(fork_ranks(kind, world, 60'000, body), std::vector<int>(static_cast<size_t>(world), 0));
  }
}

}  // namespace optserve::comm
