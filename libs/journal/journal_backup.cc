#include "journal/journal_backup.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/log.h"
#include "base/program.h"
#include "journal/journal_files.h"
#include "journal/journal_schema.h"

namespace optserve::journal {
namespace {

constexpr int kPagesAStep = 256;  // about a millisecond
constexpr std::string_view kPrefix = "journal-";
constexpr std::string_view kSuffix = "Z.db";
constexpr std::string_view kPartial = ".partial";

std::string backup_name(int64_t wall_ms) {
  const std::time_t seconds = wall_ms / 1000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  const size_t length = std::strftime(text.data(), text.size(), "%Y%m%dT%H%M%S", &parts);
  std::string thousandths = std::to_string(1000 + wall_ms % 1000);
  thousandths[0] = '.';
  return std::string(kPrefix) + std::string(text.data(), length) + thousandths + std::string(kSuffix);
}

// The time in the name of a backup; nullopt if the name is not that of a backup.
std::optional<int64_t> time_of(const std::string& name) {
  std::tm parts{};
  int thousandths = 0;
  int read = 0;
  const int found = std::sscanf(name.c_str(), "journal-%4d%2d%2dT%2d%2d%2d.%3dZ.db%n", &parts.tm_year, &parts.tm_mon,
                                &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &thousandths, &read);
  if (found != 7 || static_cast<size_t>(read) != name.size()) return std::nullopt;
  parts.tm_year -= 1900, parts.tm_mon -= 1;
  return int64_t{::timegm(&parts)} * 1'000 + thousandths;
}

// Oldest first: their names are their times.
std::vector<std::string> backups_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failure)) {
    const std::string name = entry.path().filename().string();
    if (time_of(name)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The name must be later than all others in the folder, whatever the wall clock has done, since the newest backup is
// the one to restore and the oldest ones are removed.
std::string next_name(const std::string& folder, int64_t wall_ms) {
  const std::vector<std::string> names = backups_in(folder);
  return backup_name(names.empty() ? wall_ms : std::max(wall_ms, *time_of(names.back()) + 1));
}

void remove_partial_copies(const std::string& folder) {
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failure)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kPartial)) remove_file(entry.path().string());
  }
}

Result<BackUpDone> check_and_publish(const std::string& folder, const std::string& name, size_t kept) {
  const std::string path = folder + "/" + name;
  try {
    publish_copy(path + std::string(kPartial), path);
    std::vector<std::string> names = backups_in(folder);
    for (size_t i = 0; i + kept < names.size(); ++i) remove_file(folder + "/" + names[i]);
    return BackUpDone{name, file_bytes(path)};
  } catch (const Error& error) {
    return refuse(ErrorCode::kInternal, error.what());
  }
}

}  // namespace

std::string latest_backup(const std::string& folder) {
  const std::vector<std::string> names = backups_in(folder);
  return names.empty() ? "" : folder + "/" + names.back();
}

Backups::Backups(const JournalOptions& options, Instant now, Database& source)
    : source_(source),
      folder_(options.backup_folder),
      interval_(options.backup_interval),
      kept_(std::max<size_t>(1, options.backups_kept)) {
  if (folder_.empty()) return;
  if (!std::filesystem::is_directory(folder_)) {
    throw ConfigurationError("backup folder " + folder_ + ": no such folder");
  }
  remove_partial_copies(folder_);
  const std::string latest = latest_backup(folder_);
  if (latest.empty()) return;
  // Restarts more often than the interval must not put off a backup forever.
  const auto age = std::filesystem::file_time_type::clock::now() - std::filesystem::last_write_time(latest);
  due_ = now + (interval_ - std::clamp(std::chrono::duration_cast<milliseconds>(age), milliseconds(0), interval_));
}

Backups::~Backups() {
  copy_.reset();
  target_.reset();
  if (!name_.empty() && !outcome_.valid()) std::filesystem::remove(file(name_ + std::string(kPartial)));
}

void Backups::step(Instant now, int64_t wall_ms, bool is_full, std::vector<Answer>& answers) {
  if (folder_.empty()) {
    for (const uint64_t request : std::exchange(asked_, {})) {
      answers.push_back(
          {request, refuse(ErrorCode::kUnavailable, "the scheduler was started without a backup folder")});
    }
    return;
  }
  if (outcome_.valid()) {
    if (outcome_.wait_for(seconds(0)) == std::future_status::ready) take_outcome(answers);
    return;
  }
  if (copy_ != nullptr) {
    // The copy contains what is committed while it is made, so requests that came meanwhile are answered with it.
    under_way_.insert(under_way_.end(), asked_.begin(), asked_.end());
    asked_.clear();
    copy_pages();
    return;
  }
  const bool is_due = interval_ > milliseconds(0) && !is_full && now >= due_;
  if (is_due || !asked_.empty()) start(now, wall_ms);
}

void Backups::start(Instant now, int64_t wall_ms) {
  due_ = now + interval_;
  under_way_ = std::exchange(asked_, {});
  name_ = next_name(folder_, wall_ms);
  try {
    target_ = open_copy(file(name_ + std::string(kPartial)));
    copy_.reset(sqlite3_backup_init(target_->handle(), "main", source_.handle(), "main"));
    if (copy_ == nullptr) target_->fail("backup", sqlite3_errcode(target_->handle()));
  } catch (const Error& error) {
    fail(error.what());
  }
}

void Backups::copy_pages() {
  const int code = sqlite3_backup_step(copy_.get(), kPagesAStep);
  if (code == SQLITE_OK) return;
  const int finished = sqlite3_backup_finish(copy_.release());
  target_.reset();
  if (code != SQLITE_DONE || finished != SQLITE_OK) {
    fail(std::string("backup: ") + sqlite3_errstr(code != SQLITE_DONE ? code : finished));
    return;
  }
  outcome_ = std::async(std::launch::async, check_and_publish, folder_, name_, kept_);
}

void Backups::fail(const std::string& why) {
  copy_.reset();
  target_.reset();
  std::promise<Result<BackUpDone>> failed;
  failed.set_value(refuse(ErrorCode::kInternal, why));
  outcome_ = failed.get_future();
}

void Backups::take_outcome(std::vector<Answer>& answers) {
  const Result<BackUpDone> outcome = outcome_.get();
  if (outcome.ok()) {
    log_info("journal_backed_up", {{"file", outcome.value().file}, {"bytes", outcome.value().bytes}});
  } else {
    log_error("journal_backup_failed", {{"error", outcome.refusal().message}});
    std::error_code ignored;
    std::filesystem::remove(file(name_ + std::string(kPartial)), ignored);
  }
  name_.clear();
  for (const uint64_t request : std::exchange(under_way_, {})) {
    if (outcome.ok()) {
      answers.push_back({request, outcome.value()});
    } else {
      answers.push_back({request, outcome.refusal()});
    }
  }
}

}  // namespace optserve::journal
