// No call waits: for programs with a loop of their own. Here the loop is a queue of functions that callbacks fill,
// since callbacks run on the client's thread and must not block it.
//
//   callbacks [tcp://127.0.0.1:5555] [MODEL]
#include <optserve/async_client.h>
#include <optserve/future.h>

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <mutex>

using namespace optserve::client;

class Loop {
 public:
  void post(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
    changed_.notify_one();
  }
  void run_until(const bool& ended) {
    while (!ended) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !work_.empty(); });
      const auto work = std::move(work_.front());
      work_.pop_front();
      lock.unlock();
      work();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
};

int main(int argc, char** argv) {
  Loop loop;
  bool ended = false, succeeded = false;
  ClientOptions options;
  if (argc > 1) options.endpoints = argv[1];
  AsyncClient client(options);

  JobSpec job;
  job.model = argc > 2 ? argv[2] : "demo";
  job.prompt = "Once upon a time";
  job.max_new_tokens = 20;
  JobStream stream;
  stream.on_text = [&](std::string_view piece, const JobEvent&) {
    loop.post([text = std::string(piece)] { std::printf("%s", text.c_str()); });
  };
  stream.on_finished = [&](const JobResult& result) {
    loop.post([&ended, &succeeded, state = result.state] { ended = true, succeeded = state == JobState::kSucceeded; });
  };
  stream.on_lost = [&](const optserve::JobId&, const optserve::Refusal& why) {
    loop.post([&ended, why] { ended = true, std::fprintf(stderr, "%s\n", why.message.c_str()); });
  };
  client.submit({job}, stream, [&](const Submission& submission) {
    const auto& outcomes = submission.outcomes;
    if (outcomes.ok() && outcomes.value()[0].job) return;  // the stream tells the rest
    const std::string why = outcomes.ok() ? outcomes.value()[0].message : outcomes.refusal().message;
    loop.post([&ended, why] { ended = true, std::fprintf(stderr, "%s\n", why.c_str()); });
  });
  loop.run_until(ended);
  std::printf("\n");

  // Where a loop is too much, a future takes the place of the callback.
  auto status = future_of<Answers<SystemStatus>>([&](auto done) { client.status(done); });
  return succeeded && status.get().at(0).answer.ok() ? 0 : 1;
}
