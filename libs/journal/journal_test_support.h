// Functions that the journal's tests share.
#pragma once

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "base/clock.h"
#include "journal/journal.h"
#include "journal/sqlite/sqlite.h"
#include "protocol/codec.h"

namespace optserve::journal::testing {

class TempFolder {
 public:
  explicit TempFolder(const std::filesystem::path& under = std::filesystem::temp_directory_path()) {
    std::string name = (under / "optserve-journal-XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "mkdtemp");
    path_ = name;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

inline JobId id_of(uint64_t number) {
  JobId id;
  std::memcpy(id.bytes.data(), &number, sizeof number);
  return id;
}

inline Accepted accepted(uint64_t order, const std::string& prompt = "once") {
  Accepted record;
  record.job = id_of(order);
  record.order = order;
  record.accepted_at_ms = static_cast<int64_t>(order);
  record.accepted_wall_ms = 1'000 + static_cast<int64_t>(order);
  record.payload_sha256 = std::string(32, static_cast<char>(order));
  record.spec.key = "key-" + std::to_string(order);
  record.spec.tenant = "tenant";
  record.spec.model = "opt";
  record.spec.prompt = prompt;
  return record;
}

inline Finished finished(uint64_t order, const std::string& text, int64_t ttl_ms = 60'000) {
  Finished record;
  record.order = order;
  record.expires_at_ms = ttl_ms;  // a fresh journal's time begins at 0
  record.accepted_wall_ms = 1'000 + static_cast<int64_t>(order);
  record.tenant = "tenant";
  record.model = "opt";
  record.payload_sha256 = std::string(32, static_cast<char>(order));
  record.result.job = id_of(order);
  record.result.key = "key-" + std::to_string(order);
  record.result.state = protocol::JobState::kSucceeded;
  record.result.text = text;
  return record;
}

inline bool wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 10'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return false;
}

inline bool wait_durable(const JobStore& store, uint64_t sequence) {
  return wait_for([&] { return store.durable() >= sequence; });
}

// The answer to a question; a Refusal with kInternal if none comes.
inline decltype(Answer::body) ask(Journal& journal, Question question) {
  static uint64_t request = 0;
  journal.ask(++request, std::move(question));
  for (int i = 0; i < 1'000; ++i) {
    pollfd waiting{journal.answers_fd(), POLLIN, 0};
    ::poll(&waiting, 1, 10);
    for (auto& answer : journal.poll_answers()) {
      if (answer.request == request) return std::move(answer.body);
    }
  }
  return refuse(ErrorCode::kInternal, "no answer");
}

template <class T>
T ask_for(Journal& journal, Question question) {
  auto answer = ask(journal, std::move(question));
  if (const auto* refusal = std::get_if<Refusal>(&answer)) throw Error("refused: " + refusal->message);
  return std::get<T>(std::move(answer));
}

inline std::optional<protocol::JobResult> fetch(Journal& journal, const JobId& job) {
  return ask_for<ResultFound>(journal, FindResult{job}).result;
}

// The text of the Error that this throws; empty if it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

// Opens a journal with the system's clock.
inline std::unique_ptr<Journal> open_journal(const JournalOptions& options, Recovery& recovery) {
  static const SystemClock clock;
  return Journal::open(options, clock, recovery);
}

inline std::string open_error(const JournalOptions& options) {
  return error_of([&] {
    Recovery recovery;
    open_journal(options, recovery);
  });
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  ::chmod(path.c_str(), 0600);
}

}  // namespace optserve::journal::testing
