// What one client saw of a number of jobs that it streams: for tests that every job ends exactly once.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "client/client.h"

namespace optserve::test_support {

// The client's callbacks use it, so it must outlive the client or all its jobs.
class JobWatch {
 public:
  explicit JobWatch(size_t jobs) : seen_(jobs) {}

  // The stream of job `index`.
  client::JobStream stream(size_t index) {
    client::JobStream stream;
    stream.on_text = [this, index](std::string_view piece, const protocol::JobEvent&) {
      const std::lock_guard lock(mutex_);
      seen_[index].streamed += piece;
      ++pieces_;
    };
    stream.on_finished = [this, index](const protocol::JobResult& result) {
      const std::lock_guard lock(mutex_);
      ++seen_[index].ends;
      seen_[index].text = result.text;
      seen_[index].state = result.state;
      seen_[index].message = result.message;
      ++finished_;
    };
    stream.on_lost = [this, index](const JobId&, const Refusal& why) {
      const std::lock_guard lock(mutex_);
      seen_[index].message = "lost: " + why.message;
      ++finished_;
    };
    return stream;
  }

  size_t pieces() const { return pieces_; }      // of text, of all jobs
  size_t finished() const { return finished_; }  // jobs that have ended or were lost
  // The text of each result.
  std::vector<std::string> texts() {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> texts;
    for (const Seen& job : seen_) texts.push_back(job.text);
    return texts;
  }
  void expect_each_succeeded_once_with(const std::vector<std::string>& texts) {
    const std::lock_guard lock(mutex_);
    ASSERT_EQ(texts.size(), seen_.size());
    for (size_t i = 0; i < seen_.size(); ++i) {
      SCOPED_TRACE("job " + std::to_string(i) + ": " + seen_[i].message);
      EXPECT_EQ(seen_[i].ends, 1);
      EXPECT_EQ(seen_[i].state, protocol::JobState::kSucceeded);
      EXPECT_EQ(seen_[i].text, texts[i]);
      EXPECT_EQ(seen_[i].streamed, texts[i]);
    }
  }

 private:
  struct Seen {
    std::string streamed, text, message;
    int ends = 0;
    protocol::JobState state = protocol::JobState::kQueued;
  };
  std::mutex mutex_;
  std::vector<Seen> seen_;
  std::atomic<size_t> pieces_{0}, finished_{0};
};

}  // namespace optserve::test_support
