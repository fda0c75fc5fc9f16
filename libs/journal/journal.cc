#include "journal/journal.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "journal/journal_database.h"

namespace optserve::journal {
namespace {

constexpr milliseconds kIdleAfter{20};       // without work: time for a checkpoint
constexpr milliseconds kPurgeInterval{500};  // between looks for expired results
constexpr int64_t kPurgeLimit = 256;         // rows a purge, so that new work waits little

// What waits for the journal thread, in order: a read sees every record appended before it.
struct Asked {
  uint64_t request = 0;
  Question question;
};
using Work = std::variant<Record, Asked>;

size_t size_of(const Record& record) {
  if (const auto* accepted = std::get_if<Accepted>(&record)) {
    return accepted->encoded_spec.size() + accepted->spec.prompt.size() + accepted->spec.prompt_ids.size() * 4 + 256;
  }
  if (const auto* finished = std::get_if<Finished>(&record)) {
    return finished->result.text.size() + finished->result.ids.size() * 4 +
           finished->result.prompt_logprobs.size() * 4 + 256;
  }
  if (const auto* progress = std::get_if<Progress>(&record)) return progress->ids.size() * 4 + 64;
  return 64;
}

class EventFd {
 public:
  EventFd() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) throw errno_error("eventfd");
  }
  ~EventFd() { ::close(fd_); }
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;
  void signal() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof one);  // full counter: readable anyway
  }
  void clear() const {
    uint64_t count;
    [[maybe_unused]] const ssize_t got = ::read(fd_, &count, sizeof count);  // nothing to read: clear already
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

struct Journal::Impl {
  Impl(const JournalOptions& given, Recovery& recovery)
      : options(given), database(given, SystemClock().wall_ms(), recovery) {
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

  void run() {
    try {
      while (turn()) {
      }
      database.checkpoint();
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
    std::vector<Record> records;
    std::vector<Asked> questions;
    {
      std::unique_lock lock(mutex);
      const bool woken =
          wake.wait_for(lock, idle ? kPurgeInterval : kIdleAfter, [&] { return stopping || !queue.empty(); });
      if (woken && queue.empty()) return false;
      take_batch(records, questions);
    }
    if (records.empty() && questions.empty()) {
      do_idle_work();
      return true;
    }
    idle = false;
    if (!records.empty()) {
      database.commit(records);
      durable.fetch_add(records.size(), std::memory_order_release);
      durable_event.signal();
    }
    answer(questions);
    if (database.wal_bytes() >= options.checkpoint_bytes) database.checkpoint();
    return true;
  }

  void take_batch(std::vector<Record>& records, std::vector<Asked>& questions) {
    size_t bytes = 0;
    while (!queue.empty() && records.size() < options.batch_records_max && bytes < options.batch_bytes_max) {
      if (auto* record = std::get_if<Record>(&queue.front())) {
        // A record behind a question waits for the next batch: the question sees what came before it, nothing else.
        if (!questions.empty()) break;
        bytes += size_of(*record);
        records.push_back(std::move(*record));
      } else {
        if (questions.size() >= options.batch_records_max) break;
        questions.push_back(std::move(std::get<Asked>(queue.front())));
      }
      queue.pop_front();
    }
    waiting.store(queue.size(), std::memory_order_relaxed);
  }

  void do_idle_work() {
    if (database.wal_bytes() > 0) database.checkpoint();
    const Instant now = SystemClock().now();
    idle = true;
    if (now < next_purge) return;
    // A full purge means that there is more: come back soon.
    const bool more = database.purge_expired(SystemClock().wall_ms(), kPurgeLimit) == kPurgeLimit;
    idle = !more;
    next_purge = more ? now : now + kPurgeInterval;
  }

  void answer(const std::vector<Asked>& questions) {
    if (questions.empty()) return;
    const int64_t now = SystemClock().wall_ms();
    std::vector<Answer> found;
    for (const Asked& asked : questions) {
      const auto* find = std::get_if<FindResult>(&asked.question);
      if (find == nullptr) continue;
      found.push_back({asked.request, ResultFound{find->job, database.find_result(find->job, now)}});
    }
    {
      const std::lock_guard lock(mutex);
      for (Answer& item : found) answers.push_back(std::move(item));
    }
    answer_event.signal();
  }

  void throw_if_failed() {
    if (!failed.load(std::memory_order_acquire)) [[likely]]
      return;
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
  JournalDatabase database;  // the thread's, once it runs
  uint64_t appended = 0;     // the caller's
  std::atomic<uint64_t> durable{0};
  std::atomic<size_t> waiting{0};
  std::atomic<bool> failed{false};
  EventFd durable_event;
  EventFd answer_event;
  bool idle = false;  // the thread's: nothing to do but purge
  Instant next_purge{};

  std::mutex mutex;  // of what follows
  std::condition_variable wake;
  std::deque<Work> queue;
  std::vector<Answer> answers;
  std::string failure;
  bool stopping = false;

  std::thread thread;  // last: everything above exists when it starts
};

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Journal::~Journal() = default;

std::unique_ptr<Journal> Journal::open(const JournalOptions& options, Recovery& recovery) {
  return std::unique_ptr<Journal>(new Journal(std::make_unique<Impl>(options, recovery)));
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

bool Journal::is_congested() const {
  return impl_->waiting.load(std::memory_order_relaxed) > impl_->options.queue_records_max;
}

bool Journal::is_full() const { return false; }

void Journal::ask(uint64_t request, Question question) { impl_->push(Asked{request, std::move(question)}); }

std::vector<Answer> Journal::poll_answers() {
  impl_->answer_event.clear();
  impl_->throw_if_failed();
  const std::lock_guard lock(impl_->mutex);
  return std::exchange(impl_->answers, {});
}

int Journal::event_fd() const { return impl_->durable_event.fd(); }
int Journal::answers_fd() const { return impl_->answer_event.fd(); }

}  // namespace optserve::journal
