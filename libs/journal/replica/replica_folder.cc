#include "journal/replica/replica_folder.h"

#include <algorithm>
#include <charconv>
#include <set>

namespace optserve::journal {
namespace {

constexpr std::string_view kPagesSuffix = ".pages";
constexpr std::string_view kLogSuffix = ".log";
constexpr std::string_view kNewSuffix = ".log.new";

// nullopt if the file is not of a copy.
std::optional<uint64_t> copy_of(std::string_view name) {
  uint64_t copy = 0;
  const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), copy);
  const std::string_view suffix(end, static_cast<size_t>(name.data() + name.size() - end));
  const bool is_ours = suffix == kPagesSuffix || suffix == kLogSuffix || suffix == kNewSuffix;
  return failure == std::errc() && is_ours ? std::optional(copy) : std::nullopt;
}

std::set<uint64_t> copies_in(ReplicaDisk& disk) {
  std::set<uint64_t> copies;
  for (const std::string& name : disk.names()) {
    if (const auto copy = copy_of(name)) copies.insert(*copy);
  }
  return copies;
}

}  // namespace

std::string pages_name(uint64_t copy) { return std::to_string(copy) + std::string(kPagesSuffix); }
std::string log_name(uint64_t copy) { return std::to_string(copy) + std::string(kLogSuffix); }

std::optional<FoundReplica> find_replica(ReplicaDisk& disk) {
  const std::vector<std::string> names = disk.names();
  const auto has = [&](const std::string& name) { return std::ranges::find(names, name) != names.end(); };
  std::optional<FoundReplica> begun;
  const std::set<uint64_t> copies = copies_in(disk);
  for (auto copy = copies.rbegin(); copy != copies.rend(); ++copy) {
    if (!has(log_name(*copy)) || !has(pages_name(*copy))) continue;
    const auto log = disk.open(log_name(*copy), false);
    LogEnd end = read_log(*log, [](const Segment&) {});
    if (!end.last) continue;
    FoundReplica found{*copy, std::move(*end.last)};
    if (found.last.is_complete) return found;
    if (!begun) begun = std::move(found);
  }
  return begun;
}

LogEnd apply_log(ReplicaFile& log, ReplicaFile& pages) {
  uint64_t database_pages = 0;
  LogEnd end = read_log(log, [&](const Segment& segment) {
    for (const auto& [number, page] : segment.pages) {
      pages.write_at(page, static_cast<int64_t>((number - 1) * kReplicaPageBytes));
    }
    if (segment.database_pages > 0) database_pages = segment.database_pages;
  });
  if (database_pages > 0) pages.truncate(static_cast<int64_t>(database_pages * kReplicaPageBytes));
  return end;
}

bool ReplicaFolder::resume(const FoundReplica& found) {
  copy_ = found.copy;
  pages_ = disk_.open(pages_name(copy_), false);
  log_ = disk_.open(log_name(copy_), false);
  LogEnd end = read_log(*log_, [](const Segment&) {});
  if (!end.last || !end.last->is_complete || end.last->number != found.last.number) {
    close();
    return false;
  }
  log_->truncate(end.bytes);
  log_bytes_ = end.bytes;
  last_ = std::move(*end.last);
  fold();
  remove_all_but(copy_);
  return true;
}

void ReplicaFolder::begin() {
  close();
  const std::set<uint64_t> copies = copies_in(disk_);
  copy_ = copies.empty() ? 1 : *copies.rbegin() + 1;
  pages_ = disk_.open(pages_name(copy_), true);
  log_ = disk_.open(log_name(copy_), true);
  // Nothing of an earlier copy that had this number may come back with a loss of power.
  pages_->sync();
  log_->sync();
  disk_.sync_names();
  log_bytes_ = 0;
  last_ = {};
}

void ReplicaFolder::append(Segment segment) {
  disk_.check_place(*log_, log_name(copy_));
  segment.number = last_.number + 1;
  const std::string bytes = encode(segment);
  log_->write_at(bytes, log_bytes_);
  log_->sync();
  const bool is_first_complete = segment.is_complete && !last_.is_complete;
  log_bytes_ += static_cast<int64_t>(bytes.size());
  segment.pages.clear();
  last_ = std::move(segment);
  if (is_first_complete) remove_all_but(copy_);
}

// The pages may be a mixture of commits while this runs, but the log still has everything that makes them whole.
void ReplicaFolder::fold() {
  apply_log(*log_, *pages_);
  pages_->sync();
  const std::string fresh = std::to_string(copy_) + std::string(kNewSuffix);
  auto log = disk_.open(fresh, true);
  Segment first = last_;
  first.database_pages = 0;  // nothing has changed since
  const std::string bytes = encode(first);
  log->write_at(bytes, 0);
  log->sync();
  disk_.rename(fresh, log_name(copy_));
  disk_.sync_names();
  log_ = std::move(log);
  log_bytes_ = static_cast<int64_t>(bytes.size());
}

void ReplicaFolder::close() {
  log_.reset();
  pages_.reset();
}

void ReplicaFolder::discard() {
  close();
  if (!last_.is_complete && copy_ != 0) {
    disk_.remove(log_name(copy_));
    disk_.remove(pages_name(copy_));
  }
  copy_ = 0;
}

void ReplicaFolder::remove_all_but(uint64_t copy) {
  for (const std::string& name : disk_.names()) {
    const auto found = copy_of(name);
    if (found && *found != copy) disk_.remove(name);
  }
}

}  // namespace optserve::journal
