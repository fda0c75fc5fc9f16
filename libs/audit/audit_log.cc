#include "audit/audit_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "audit/audit_file.h"
#include "base/error.h"
#include "base/log.h"

namespace optserve::audit {
namespace {

constexpr size_t kBatchRecords = 256;

}  // namespace

struct Log::Impl {
  explicit Impl(LogOptions given)
      : options(std::move(given)), file(options.path, options.file_bytes_max, options.files_max) {
    thread = std::thread([this] { run(); });
  }
  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_all();
    thread.join();
  }

  void write(Record record) {
    {
      const std::lock_guard lock(mutex);
      if (waiting.size() < options.waiting_max) {
        waiting.push_back(std::move(record));
        record.action.clear();
      }
    }
    wake.notify_all();
    if (!record.action.empty()) lose(1);
  }

  void lose(size_t records) {
    log_error("audit_records_lost", {{"file", options.path}, {"records", records}});
    if (options.on_lost) options.on_lost(records);
  }

  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      wake.wait(lock, [&] { return stopping || !waiting.empty(); });
      if (waiting.empty()) return;
      const size_t count = std::min(waiting.size(), kBatchRecords);
      const std::vector<Record> batch(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(count));
      lock.unlock();
      const bool is_written = append(batch);
      lock.lock();
      if (is_written) {
        waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(count));
      } else if (stopping) {
        lose(waiting.size());
        return;
      } else {
        wake.wait_for(lock, options.retry_pause, [&] { return stopping; });
      }
    }
  }

  // False: nothing of it is in the file.
  bool append(const std::vector<Record>& batch) {
    std::string lines;
    for (const Record& record : batch) lines += line_of(record);
    try {
      file.append(lines);
    } catch (const Error& failure) {
      // Once: it is tried each second.
      if (!std::exchange(is_failing, true)) {
        log_error("audit_not_written", {{"file", options.path}, {"cause", failure.what()}});
      }
      if (options.on_failed) options.on_failed();
      return false;
    }
    if (std::exchange(is_failing, false)) log_info("audit_written_again", {{"file", options.path}});
    if (options.on_written) options.on_written(batch.size());
    return true;
  }

  const LogOptions options;
  AuditFile file;           // the thread's
  bool is_failing = false;  // the thread's
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Record> waiting;
  bool stopping = false;
  std::thread thread;  // last: everything above exists when it starts
};

Log::Log(LogOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Log::~Log() = default;

void Log::write(Record record) { impl_->write(std::move(record)); }

}  // namespace optserve::audit
