#include "backend/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>

namespace optserve::backend {
namespace thread_pool_test {

TEST(ThreadPool, RunsEveryItemOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t items : {0, 1, 2, 3, 100, 1000}) {
      std::vector<int> runs(static_cast<size_t>(items));
      pool.run(items, [&](int64_t item, int thread) {
        EXPECT_TRUE(thread >= 0 && thread < threads);
        ++runs[static_cast<size_t>(item)];
      });
      EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
    }
  }
}

TEST(ThreadPool, EveryRoundSeesTheRoundBefore) {
  ThreadPool pool(4);
  std::vector<int64_t> values(7, 0);
  for (int round = 0; round < 20'000; ++round) {
    pool.run(7, [&](int64_t item, int) { values[static_cast<size_t>(item)] += item; });
  }
  for (int64_t item = 0; item < 7; ++item) EXPECT_EQ(values[static_cast<size_t>(item)], item * 20'000);
}

TEST(ThreadPool, ThreadsOwnTheirScratch) {
  ThreadPool pool(3);
  std::vector<int64_t> sums(3, 0);  // one for each thread, unsynchronised
  for (int round = 0; round < 1000; ++round) {
    pool.run(50, [&](int64_t item, int thread) { sums[static_cast<size_t>(thread)] += item; });
  }
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), int64_t{0}), 1000 * 49 * 50 / 2);
}

TEST(ThreadPool, StartsAndStopsQuickly) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(4);
    if (i % 2 == 0) pool.run(2, [](int64_t, int) {});
  }
}

}  // namespace thread_pool_test
}  // namespace optserve::backend
