// Test support: runs body(communicator) once for each rank of a group, as threads or as forked processes.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.h"

namespace optserve {

enum class RankKind { kSolo, kThreads, kProcesses };

inline std::string rank_kind_name(RankKind kind) {
  if (kind == RankKind::kSolo) return "Solo";
  return kind == RankKind::kThreads ? "Threads" : "Processes";
}

using RankBody = std::function<void(Communicator&)>;

// An exception of one rank aborts the group and fails the test.
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

// Exit status of each rank: 0, 1 after a failed expectation, 2 after an exception, 128 + signal. Call it before the
// test program starts threads of its own.
inline std::vector<int> fork_ranks(int world, int timeout_ms, const RankBody& body) {
  const ProcessGroupMemory memory = create_process_group_memory(world);
  std::vector<pid_t> pids;
  for (int rank = 0; rank < world; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      int status = 0;
      try {
        body(*make_process_communicator(memory, rank, world, timeout_ms));
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
  close(memory.fd);
  return statuses;
}

inline void run_ranks(RankKind kind, int world, const RankBody& body) {
  if (kind == RankKind::kSolo) {
    body(*make_solo_communicator());
  } else if (kind == RankKind::kThreads) {
    run_rank_threads(world, body);
  } else {
    EXPECT_EQ(fork_ranks(world, 60'000, body), std::vector<int>(static_cast<size_t>(world), 0));
  }
}

}  // namespace optserve
