#include "journal/journal.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log.h"
#include "journal/event_fd.h"
#include "journal/journal_storage.h"

namespace optserve::journal {
namespace {

constexpr milliseconds kIdleAfter{20};          // without work: time for a checkpoint
constexpr milliseconds kPurgeInterval{500};     // between checks for expired results
constexpr milliseconds kFullRetry{200};         // between attempts on a full disk
constexpr milliseconds kReportInterval{1'000};  // between reports on the storage, for the metrics
constexpr int64_t kPurgeLimit = 256;            // rows per purge, so that new work need not wait long
constexpr uint32_t kListWindow = 512;           // rows per look at ended jobs, for the same reason
constexpr uint32_t kPurgeWindow = 256;

// What waits for the journal thread, in order, so that a question sees every record appended before it.
struct Asked {
  uint64_t request = 0;
  Question question;
};
using Work = std::variant<Record, Asked>;

// A question that takes more than one turn.
struct Task {
  uint64_t request = 0;
  std::variant<ListEnded, PurgeEnded> question;
  uint64_t after = 0;
  EndedListed listed{};
  EndedPurged purged{};
};

size_t size_of(const Record& record) {
  if (const auto* accepted = std::get_if<Accepted>(&record)) {
    return accepted->encoded_spec.size() + accepted->spec.prompt.size() + accepted->spec.prompt_ids.size() * 4 + 256;
  }
  if (const auto* finished = std::get_if<Finished>(&record)) {
    return finished->result.text.size() + finished->result.ids.size() * 4 +
           finished->result.prompt_logprobs.size() * 4 + finished->encoded_spec.size() + 256;
  }
  if (const auto* progress = std::get_if<Progress>(&record)) return progress->ids.size() * 4 + 64;
  return 64;
}

// Throws Error, and says which backup to use if there is one.
[[noreturn]] void fail_damaged(const DamagedError& damage, const JournalOptions& options) {
  const std::string latest = options.backup_folder.empty() ? "" : latest_backup(options.backup_folder);
  throw DamagedError(damage.what() + (latest.empty() ? "" : ". The latest backup is " + latest));
}

}  // namespace

struct Journal::Impl {
  Impl(const JournalOptions& given, const Clock& of, Recovery& recovery)
      : options(given), clock(of), storage(open_storage(recovery)), time(storage->time()) {
    thread = std::thread([this] { run(); });
  }
  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_one();
    thread.join();
  }

  std::unique_ptr<JournalStorage> open_storage(Recovery& recovery) {
    return is_postgres_url(options.path) ? open_postgres_storage(options, clock, recovery)
                                         : open_sqlite_storage(options, clock, recovery);
  }

  void run() {
    try {
      while (turn()) {
      }
      storage->close();
    } catch (const std::exception& error) {
      log_error("journal_failed", {{"error", error.what()}});
      {
        const std::lock_guard lock(mutex);
        failure = error.what();
      }
      failed.store(true, std::memory_order_release);
      durable_event.signal();
      answer_event.signal();
    }
  }

  // Waits for work and does one batch; false when stopping with nothing left.
  bool turn() {
    std::vector<Asked> questions;
    if (batch.empty()) {
      std::unique_lock lock(mutex);
      const bool woken = wake.wait_for(lock, patience(), [&] { return stopping || !queue.empty(); });
      if (woken && queue.empty()) return false;
      take_batch(questions);
    }
    const bool has_work = !batch.empty() || !questions.empty();
    if (!batch.empty() && !commit_batch()) return wait_for_room();
    if (has_work) {
      idle = false;
      answer(questions);
      storage->after_commit();
    } else if (tasks.empty() && !storage->needs_turns()) {
      do_idle_work();
    }
    do_tasks();
    keep_up();
    return true;
  }

  // How long to wait for work.
  milliseconds patience() const {
    if (!tasks.empty() || storage->needs_turns()) return milliseconds(0);
    if (!idle || storage->expects_turns()) return kIdleAfter;
    return storage->is_full() ? kFullRetry : kPurgeInterval;
  }

  void take_batch(std::vector<Asked>& questions) {
    size_t bytes = 0;
    while (!queue.empty() && batch.size() < options.batch_records_max && bytes < options.batch_bytes_max) {
      if (auto* record = std::get_if<Record>(&queue.front())) {
        // A record after a question waits for the next batch, since the answer must not include it.
        if (!questions.empty()) break;
        bytes += size_of(*record);
        batch.push_back(std::move(*record));
      } else {
        if (questions.size() >= options.batch_records_max) break;
        questions.push_back(std::move(std::get<Asked>(queue.front())));
      }
      queue.pop_front();
    }
    waiting.store(queue.size(), std::memory_order_relaxed);
  }

  // False if there is no room; then nothing was changed.
  bool commit_batch() {
    const Instant begun = clock.now();
    if (!storage->commit(batch)) return false;
    if (options.on_commit) options.on_commit(batch.size(), clock.now() - begun);
    durable.fetch_add(batch.size(), std::memory_order_release);
    fenced.store(storage->fenced(), std::memory_order_relaxed);
    batch.clear();
    durable_event.signal();
    return true;
  }

  // Waits when not even the reserve was enough; the batch is kept and tried again. False when stopping.
  bool wait_for_room() {
    std::vector<Answer> refused;
    {
      std::unique_lock lock(mutex);
      if (wake.wait_for(lock, kFullRetry, [&] { return stopping; })) {
        log_error("journal_records_lost", {{"records", batch.size() + queue.size()},
                                           {"meaning", "stopped on a full disk; none of them was durable"}});
        return false;
      }
      std::erase_if(queue, [&](const Work& work) {
        const auto* asked = std::get_if<Asked>(&work);
        if (asked == nullptr) return false;
        refused.push_back({asked->request, refuse(ErrorCode::kStorageFull, "the journal's disk is full")});
        return true;
      });
      waiting.store(queue.size(), std::memory_order_relaxed);
    }
    deliver(std::move(refused));
    purge_expired();
    if (options.on_state) report_state();
    return true;
  }

  int64_t purge_expired() {
    const int64_t removed = storage->purge_expired(kPurgeLimit);
    purged.fetch_add(static_cast<uint64_t>(removed), std::memory_order_relaxed);
    return removed;
  }

  void do_idle_work() {
    storage->rest();
    const Instant now = clock.now();
    idle = true;
    if (now < next_purge) return;
    const int64_t removed = purge_expired();
    // If the purge reached its limit there is probably more, so the next one comes soon.
    idle = removed < kPurgeLimit;
    next_purge = idle ? now + kPurgeInterval : now;
  }

  void keep_up() {
    const Instant now = clock.now();
    if (options.on_state && now >= next_report) {
      next_report = now + kReportInterval;
      report_state();
    }
    std::vector<Answer> found;
    storage->keep_up(found);
    if (storage->is_asked_to_hand_over()) hand_over_event.signal();
    deliver(std::move(found));
  }

  void report_state() const { options.on_state(storage->state()); }

  void answer(std::vector<Asked>& questions) {
    std::vector<Answer> found;
    for (Asked& asked : questions) {
      const uint64_t request = asked.request;
      if (auto* list = std::get_if<ListEnded>(&asked.question)) {
        const uint64_t after = list->after;
        tasks.push_back({request, std::move(*list), after});
      } else if (auto* purge = std::get_if<PurgeEnded>(&asked.question)) {
        tasks.push_back({request, std::move(*purge)});
      } else if (std::holds_alternative<BackUp>(asked.question)) {
        storage->back_up(request);
      } else {
        found.push_back(read(asked));
      }
    }
    deliver(std::move(found));
  }

  Answer read(const Asked& asked) {
    try {
      if (const auto* dead = std::get_if<FindDead>(&asked.question)) {
        return {asked.request, storage->find_dead(dead->job)};
      }
      return {asked.request, storage->find_result(std::get<FindResult>(asked.question).job)};
    } catch (const DamagedError& error) {
      return {asked.request, damaged(error)};
    }
  }

  // A damaged row is logged and reported to whoever asked for it, but never served; undamaged jobs go on.
  static Refusal damaged(const DamagedError& error) {
    log_error("journal_damaged", {{"error", error.what()}});
    return refuse(ErrorCode::kDataCorrupt, error.what());
  }

  // Does a part of the first task.
  void do_tasks() {
    if (tasks.empty()) return;
    Task& task = tasks.front();
    std::vector<Answer> done;
    if (auto* list = std::get_if<ListEnded>(&task.question)) {
      done = go_on(task, *list);
    } else {
      done = go_on(task, std::get<PurgeEnded>(task.question));
    }
    if (done.empty()) return;
    tasks.pop_front();
    deliver(std::move(done));
  }

  std::vector<Answer> go_on(Task& task, ListEnded& list) {
    try {
      list.after = task.after;
      auto part = storage->list_ended(list, kListWindow);
      task.after = part.last;
      for (auto& item : part.items) task.listed.jobs.push_back(std::move(item));
      if (!part.is_last && task.listed.jobs.size() <= list.limit) return {};
    } catch (const DamagedError& error) {
      return {{task.request, damaged(error)}};
    }
    task.listed.more = task.listed.jobs.size() > list.limit;
    if (task.listed.more) task.listed.jobs.resize(list.limit);
    return {{task.request, std::move(task.listed)}};
  }

  std::vector<Answer> go_on(Task& task, const PurgeEnded& purge) {
    auto part = storage->purge_ended(purge.filter, task.after, kPurgeWindow);
    if (!part) {
      return {{task.request, refuse(ErrorCode::kStorageFull, "the journal's disk is full: not all was purged")}};
    }
    task.after = part->last;
    for (auto& item : part->items) task.purged.forgotten.push_back(std::move(item));
    if (!part->is_last) return {};
    return {{task.request, std::move(task.purged)}};
  }

  void deliver(std::vector<Answer> found) {
    if (found.empty()) return;
    {
      const std::lock_guard lock(mutex);
      for (Answer& item : found) answers.push_back(std::move(item));
    }
    answer_event.signal();
  }

  void throw_if_failed() {
    if (!failed.load(std::memory_order_acquire)) [[likely]] {
      return;
    }
    const std::lock_guard lock(mutex);
    throw Error(failure);
  }

  void push(Work work) {
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex);
      was_empty = queue.empty();
      queue.push_back(std::move(work));
      waiting.store(queue.size(), std::memory_order_relaxed);
    }
    if (was_empty) wake.notify_one();
  }

  const JournalOptions options;
  const Clock& clock;
  std::atomic<uint64_t> durable{0};
  std::atomic<uint64_t> fenced{0};
  std::atomic<uint64_t> purged{0};
  std::atomic<size_t> waiting{0};
  std::atomic<bool> failed{false};
  EventFd durable_event;
  EventFd answer_event;
  EventFd hand_over_event;
  uint64_t appended = 0;  // used by callers

  // Used by the thread once it runs.
  std::unique_ptr<JournalStorage> storage;
  const LastingTime time;
  std::vector<Record> batch;  // taken from the queue and not yet durable
  std::deque<Task> tasks;
  bool idle = false;  // nothing to do but to purge
  Instant next_purge{};
  Instant next_report{};

  std::mutex mutex;  // guards what follows
  std::condition_variable wake;
  std::deque<Work> queue;
  std::vector<Answer> answers;
  std::string failure;
  bool stopping = false;

  std::thread thread;  // last, so that everything above exists when it starts
};

bool is_postgres_url(const std::string& path) {
  return path.starts_with("postgresql://") || path.starts_with("postgres://");
}

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Journal::~Journal() = default;

std::unique_ptr<Journal> Journal::open(const JournalOptions& options, const Clock& clock, Recovery& recovery) {
  try {
    return std::unique_ptr<Journal>(new Journal(std::make_unique<Impl>(options, clock, recovery)));
  } catch (const DamagedError& error) {
    fail_damaged(error, options);
  }
}

uint64_t Journal::append(Record record) {
  impl_->throw_if_failed();
  impl_->push(std::move(record));
  return ++impl_->appended;
}

uint64_t Journal::durable() const {
  impl_->throw_if_failed();
  return impl_->durable.load(std::memory_order_acquire);
}

int64_t Journal::time_ms(Instant now) const { return impl_->time.ms(now); }

bool Journal::is_congested() const {
  return impl_->waiting.load(std::memory_order_relaxed) > impl_->options.queue_records_max ||
         !impl_->storage->is_reachable();
}

bool Journal::is_full() const { return impl_->storage->is_full(); }

void Journal::ask(uint64_t request, Question question) { impl_->push(Asked{request, std::move(question)}); }

std::vector<Answer> Journal::poll_answers() {
  impl_->answer_event.clear();
  impl_->throw_if_failed();
  const std::lock_guard lock(impl_->mutex);
  return std::exchange(impl_->answers, {});
}

uint64_t Journal::fenced() const { return impl_->fenced.load(std::memory_order_relaxed); }
uint64_t Journal::purged() const { return impl_->purged.load(std::memory_order_relaxed); }
int Journal::hand_over_fd() const { return impl_->hand_over_event.fd(); }
int Journal::event_fd() const { return impl_->durable_event.fd(); }
int Journal::answers_fd() const { return impl_->answer_event.fd(); }

}  // namespace optserve::journal
