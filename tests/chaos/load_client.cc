#include "load_client.h"

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "base/shutdown.h"
#include "client/client.h"
#include "job_plan.h"
#include "ledger.h"

namespace optserve::chaos {
namespace {

using client::Client;
using client::ClientOptions;
using client::JobStream;
using std::chrono::milliseconds;

constexpr size_t kBulk = 8;        // jobs of one call when that many wait
constexpr int64_t kRetryMs = 300;  // after a call without an answer
constexpr milliseconds kCallTimeout{8'000};

class LoadClient {
 public:
  explicit LoadClient(const LoadOptions& options);
  int run();

 private:
  // Something to do with a job when its time has come.
  enum class Step { kSubmit, kFollow, kCancel, kSubmitAgain, kConflict };
  struct Task {
    Step step = Step::kSubmit;
    uint64_t job = 0;
    JobId id{};
    uint64_t from = 0;  // kFollow: bytes of text that the ledger has
  };

  PlannedJob plan(uint64_t job) const { return plan_job(options_.seed, options_.client, job); }
  void resume();
  void arrive();
  bool drain();
  void work();
  std::vector<Task> take();
  void later(const Task& task, int64_t wait_ms);
  void perform(const std::vector<Task>& tasks);
  void submit(const std::vector<Task>& tasks);
  void accepted(uint64_t job, const JobId& id);
  void follow(const Task& task);
  void cancel(const Task& task);
  void submit_again(const Task& task, bool changed);
  JobStream stream_of(uint64_t job);
  void ended(uint64_t job);

  LoadOptions options_;
  LedgerWriter ledger_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<int64_t, Task> tasks_;  // by time; guarded by mutex_, as all below
  std::set<uint64_t> open_;             // jobs that were neither refused nor ended
  int busy_ = 0;                        // threads that perform a task
  bool stopping_ = false;
  uint64_t next_job_ = 1;
  Client client_;  // the last member, since its callbacks use those above
};

ClientOptions client_options(const LoadOptions& options) {
  ClientOptions settings;
  settings.insecure = true;
  settings.endpoints = options.endpoint;
  settings.timeout = kCallTimeout;
  return settings;
}

LoadClient::LoadClient(const LoadOptions& options)
    : options_(options), ledger_(options.ledger), client_(client_options(options)) {}

void LoadClient::resume() {
  for (const auto& [number, job] : read_ledger(options_.ledger)) {
    next_job_ = std::max(next_job_, number + 1);
    if (job.final() != nullptr || (job.ids.empty() && !job.codes.empty())) continue;
    open_.insert(number);
    if (job.ids.empty()) {
      tasks_.emplace(0, Task{Step::kSubmit, number});
    } else if (const auto id = JobId::from_hex(job.ids.front())) {
      tasks_.emplace(0, Task{Step::kFollow, number, *id, job.received()});
    }
  }
}

void LoadClient::arrive() {
  std::mt19937_64 random(std::random_device{}());
  std::exponential_distribution<double> gap(options_.rate / 1000);
  double next = static_cast<double>(now_ms());
  while (!shutdown_requested()) {
    next += gap(random);
    while (!shutdown_requested() && static_cast<double>(now_ms()) < next) std::this_thread::sleep_for(milliseconds(5));
    if (shutdown_requested()) return;
    const std::lock_guard lock(mutex_);
    if (open_.size() >= static_cast<size_t>(options_.open_max)) continue;
    const uint64_t job = next_job_++;
    ledger_.intend(job);
    open_.insert(job);
    tasks_.emplace(static_cast<int64_t>(next), Task{Step::kSubmit, job});
    changed_.notify_one();
  }
}

void LoadClient::work() {
  for (;;) {
    const std::vector<Task> tasks = take();
    if (tasks.empty()) return;
    perform(tasks);
    const std::lock_guard lock(mutex_);
    --busy_;
    changed_.notify_all();
  }
}

// The tasks that are due: one task, or several submits. None means that the client ends.
std::vector<LoadClient::Task> LoadClient::take() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!tasks_.empty() && tasks_.begin()->first <= now_ms()) break;
    changed_.wait_for(lock, milliseconds(20));
  }
  std::vector<Task> taken;
  if (stopping_) return taken;
  ++busy_;
  const auto take_first = [&] {
    taken.push_back(tasks_.begin()->second);
    tasks_.erase(tasks_.begin());
  };
  take_first();
  const bool bulk = tasks_.size() > kBulk;
  while (bulk && !tasks_.empty() && taken.size() < kBulk && taken.front().step == Step::kSubmit &&
         tasks_.begin()->second.step == Step::kSubmit && tasks_.begin()->first <= now_ms()) {
    take_first();
  }
  return taken;
}

void LoadClient::later(const Task& task, int64_t wait_ms) {
  const std::lock_guard lock(mutex_);
  tasks_.emplace(now_ms() + wait_ms, task);
}

void LoadClient::perform(const std::vector<Task>& tasks) {
  const Task& task = tasks.front();
  switch (task.step) {
    case Step::kSubmit:
      return submit(tasks);
    case Step::kFollow:
      return follow(task);
    case Step::kCancel:
      return cancel(task);
    case Step::kSubmitAgain:
      return submit_again(task, false);
    case Step::kConflict:
      return submit_again(task, true);
  }
}

// A single job is streamed by its submit. The jobs of a bulk are followed afterwards.
void LoadClient::submit(const std::vector<Task>& tasks) {
  std::vector<protocol::JobSpec> specs;
  for (const Task& task : tasks) specs.push_back(plan(task.job).spec);
  const bool single = tasks.size() == 1;
  if (single) ledger_.follow(tasks[0].job, 0);
  const auto reply = client_.submit(std::move(specs), single ? stream_of(tasks[0].job) : JobStream{});
  for (size_t i = 0; i < tasks.size(); ++i) {
    const Task& task = tasks[i];
    if (!reply.ok()) {
      ledger_.no_answer(task.job, reply.refusal().code);
      later(task, kRetryMs);
      continue;
    }
    const protocol::SubmitOutcome& outcome = reply.value()[i];
    if (outcome.job) {
      ledger_.accept(task.job, *outcome.job);
      accepted(task.job, *outcome.job);
      if (!single) later({Step::kFollow, task.job, *outcome.job}, 0);
    } else if (outcome.error == ErrorCode::kUnavailable) {
      ledger_.no_answer(task.job, ErrorCode::kUnavailable);
      later(task, kRetryMs);
    } else {
      ledger_.refuse(task.job, outcome.error.value_or(ErrorCode::kInternal));
      ended(task.job);
    }
  }
}

void LoadClient::accepted(uint64_t job, const JobId& id) {
  const PlannedJob planned = plan(job);
  if (planned.cancel_after_ms >= 0) later({Step::kCancel, job, id}, planned.cancel_after_ms);
  if (planned.submit_again) later({Step::kSubmitAgain, job, id}, 200);
  if (planned.conflict) later({Step::kConflict, job, id}, 400);
}

void LoadClient::follow(const Task& task) {
  ledger_.follow(task.job, task.from);
  const Status status = client_.attach(task.id, task.from, stream_of(task.job));
  if (status.ok()) return;
  const ErrorCode code = status.refusal().code;
  if (code == ErrorCode::kUnavailable || code == ErrorCode::kBusy) return later(task, kRetryMs);
  ledger_.lose(task.job, status.refusal());
  ended(task.job);
}

void LoadClient::cancel(const Task& task) {
  ledger_.ask_cancel(task.job);
  const auto result = client_.cancel(task.id);
  if (result.ok()) ledger_.cancelled(task.job, result.value().state);
}

void LoadClient::submit_again(const Task& task, bool changed) {
  protocol::JobSpec spec = plan(task.job).spec;
  if (changed) ++spec.max_new_tokens;
  const auto reply = client_.submit({spec});
  if (!reply.ok()) return;
  const protocol::SubmitOutcome& outcome = reply.value()[0];
  if (changed) {
    if (outcome.error != ErrorCode::kUnavailable && outcome.error != ErrorCode::kBusy) {
      ledger_.conflict(task.job, outcome.job ? "accepted" : error_code_name(*outcome.error));
    }
  } else if (outcome.job) {
    ledger_.accept(task.job, *outcome.job);
  }
}

JobStream LoadClient::stream_of(uint64_t job) {
  return {.on_text =
              [this, job](std::string_view piece, const protocol::JobEvent& event) {
                if (!piece.empty()) ledger_.piece(job, event.text_offset, piece);
                if (options_.slow_ms > 0 && event.text_offset == 0) {
                  std::this_thread::sleep_for(milliseconds(options_.slow_ms));
                }
              },
          .on_finished =
              [this, job](const protocol::JobResult& result) {
                ledger_.finish(job, result);
                ended(job);
              },
          .on_lost =
              [this, job](const JobId&, const Refusal& why) {
                if (why.code == ErrorCode::kCancelled) return;  // this client is ending
                ledger_.lose(job, why);
                ended(job);
              }};
}

void LoadClient::ended(uint64_t job) {
  const std::lock_guard lock(mutex_);
  open_.erase(job);
  changed_.notify_all();
}

bool LoadClient::drain() {
  std::unique_lock lock(mutex_);
  const auto is_done = [this] { return open_.empty() && tasks_.empty() && busy_ == 0; };
  size_t open = open_.size() + 1;
  for (int64_t until = 0; !is_done() && (open_.size() < open || now_ms() < until);) {
    if (open_.size() < open) until = now_ms() + options_.drain_seconds * 1'000;
    open = open_.size();
    changed_.wait_for(lock, milliseconds(100));
  }
  const bool done = is_done();
  for (const uint64_t job : open_) std::fprintf(stderr, "job %lu has not ended\n", static_cast<unsigned long>(job));
  stopping_ = true;
  changed_.notify_all();
  return done;
}

int LoadClient::run() {
  resume();
  std::vector<std::thread> workers;
  for (int i = 0; i < options_.threads; ++i) workers.emplace_back([this] { work(); });
  arrive();
  const bool done = drain();
  for (std::thread& worker : workers) worker.join();
  return done ? 0 : 3;
}

}  // namespace

int run_load_client(const LoadOptions& options) {
  install_shutdown_signals();
  return LoadClient(options).run();
}

}  // namespace optserve::chaos
