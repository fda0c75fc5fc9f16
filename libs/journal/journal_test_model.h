// For tests: what a journal must contain after given records, and random histories of records.
#pragma once

#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "journal/journal_database.h"
#include "journal/journal_test_support.h"

namespace optserve::journal::testing {

struct Model {
  struct Open {
    Accepted accepted;
    int32_t attempts = 0, crashes = 0;
    LeaseToken lease;
    std::vector<std::string> losses;
    std::vector<TokenId> progress;
  };
  struct Ended {
    protocol::JobResult result;
    protocol::JobSpec spec;
  };
  std::map<uint64_t, Open> open;
  std::map<uint64_t, Ended> ended;
  std::map<std::pair<int, std::string>, protocol::QueueMode> modes;

  void apply(const Record& record) {
    std::visit([this](const auto& body) { on(body); }, record);
  }
  // Does what a start does to what it finds.
  void restart() {
    for (auto& [order, job] : open) {
      if (job.lease.number == 0) continue;
      ++job.crashes;
      job.attempts = std::max(0, job.attempts - 1);
      job.lease.number = 0;
    }
  }
  void purge(protocol::JobState state) {
    std::erase_if(ended, [&](const auto& item) { return item.second.result.state == state; });
  }

 private:
  void on(const Accepted& record) { open[record.order] = {record, 0, 0, {}, {}, {}}; }
  void on(const Leased& record) {
    const auto found = open.find(record.order);
    if (found == open.end()) return;
    found->second.lease = record.token;
    found->second.attempts = record.attempt;
    if (!record.loss.empty() && record.token.number == 0) found->second.losses.push_back(record.loss);
  }
  void on(const Progress& record) {
    if (const auto found = open.find(record.order); found != open.end()) found->second.progress = record.ids;
  }
  void on(const Finished& record) {
    const auto found = open.find(record.order);
    if (found == open.end()) return;
    if (record.token.number != 0 && record.token != found->second.lease) return;
    ended[record.order] = {record.result, found->second.accepted.spec};
    open.erase(found);
  }
  void on(const Requeued& record) {
    const auto found = ended.find(record.dead_order);
    if (found == ended.end() || found->second.result.state != protocol::JobState::kDead) return;
    ended.erase(found);
    on(record.accepted);
  }
  void on(const ModeSet& record) {
    const std::pair key(static_cast<int>(record.scope), record.name);
    if (record.mode == protocol::QueueMode::kOpen) {
      modes.erase(key);
    } else {
      modes[key] = record.mode;
    }
  }
};

// The first difference; "" if there is none. The functions ask the journal that was recovered as `recovery`.
inline std::string difference(const Model& model, const Recovery& recovery,
                              const std::function<ResultFound(const JobId&)>& find_result,
                              const std::function<DeadFound(const JobId&)>& find_dead) {
  if (recovery.open.size() != model.open.size()) {
    return "open jobs: " + std::to_string(recovery.open.size()) + ", expected " + std::to_string(model.open.size());
  }
  for (const OpenJob& job : recovery.open) {
    const std::string name = "job " + std::to_string(job.accepted.order);
    const auto found = model.open.find(job.accepted.order);
    if (found == model.open.end()) return name + " is open";
    const Model::Open& expected = found->second;
    if (job.accepted.job != expected.accepted.job || job.accepted.spec != expected.accepted.spec ||
        job.accepted.payload_sha256 != expected.accepted.payload_sha256 ||
        job.accepted.accepted_at_ms != expected.accepted.accepted_at_ms ||
        job.accepted.accepted_wall_ms != expected.accepted.accepted_wall_ms) {
      return name + " is another one";
    }
    if (job.attempts != expected.attempts || job.crashes != expected.crashes) {
      return name + " has " + std::to_string(job.attempts) + " attempts and " + std::to_string(job.crashes) +
             " crashes, expected " + std::to_string(expected.attempts) + " and " + std::to_string(expected.crashes);
    }
    if (job.losses != expected.losses) return name + " has other losses";
    if (job.progress != expected.progress) return name + " has other progress";
  }
  if (recovery.keys.size() != model.ended.size()) {
    return "ended jobs: " + std::to_string(recovery.keys.size()) + ", expected " + std::to_string(model.ended.size());
  }
  for (const auto& [order, ended] : model.ended) {
    const auto found = find_result(ended.result.job);
    if (!found.result || *found.result != ended.result) return "result " + std::to_string(order) + " is another one";
    const bool is_dead = ended.result.state == protocol::JobState::kDead;
    const auto dead = find_dead(ended.result.job);
    if (dead.job.has_value() != is_dead) return "dead job " + std::to_string(order);
    if (is_dead && (dead.order != order || dead.job->spec != ended.spec)) return "dead " + std::to_string(order);
  }
  if (recovery.modes.size() != model.modes.size()) return "modes: " + std::to_string(recovery.modes.size());
  for (const ModeSet& mode : recovery.modes) {
    const auto found = model.modes.find({static_cast<int>(mode.scope), mode.name});
    if (found == model.modes.end() || found->second != mode.mode) return "mode of '" + mode.name + "'";
  }
  return "";
}

inline std::string difference(const Model& model, const Recovery& recovery, JournalDatabase& database) {
  return difference(
      model, recovery, [&](const JobId& job) { return database.find_result(job, Instant{}); },
      [&](const JobId& job) { return database.find_dead(job, Instant{}); });
}

// Records as a scheduler could write them, and some that must be ignored.
class History {
 public:
  explicit History(std::mt19937_64& random) : random_(random) {}

  std::vector<Record> batch(const Model& start, uint64_t term) {
    Model model = start;
    std::vector<Record> records;
    for (size_t left = 1 + random_() % 12; left > 0; --left) {
      Record record = next(model, term);
      model.apply(record);
      records.push_back(std::move(record));
    }
    return records;
  }

 private:
  template <class Map>
  uint64_t pick(const Map& map) {
    return std::next(map.begin(), static_cast<ptrdiff_t>(random_() % map.size()))->first;
  }
  std::string text() {
    return std::string(random_() % 16 == 0 ? random_() % 9'000 : random_() % 300, static_cast<char>('a' + order_ % 26));
  }

  Record next(const Model& model, uint64_t term) {
    const uint64_t choice = random_() % 100;
    if (choice < 35 || model.open.empty()) return accept();
    const uint64_t order = pick(model.open);
    const Model::Open& job = model.open.at(order);
    if (choice < 60) {
      if (job.lease.number == 0) return Leased{job.accepted.job, order, {term, ++lease_}, job.attempts + 1};
      if (choice < 45) return Leased{job.accepted.job, order, {term, 0}, job.attempts, "lost " + text().substr(0, 99)};
      return Leased{job.accepted.job, order, {term, 0}, job.attempts - 1};
    }
    if (choice < 70) return Progress{job.accepted.job, order, std::vector<TokenId>(1 + random_() % 60, 7)};
    if (choice < 74) {
      return ModeSet{protocol::ControlScope::kModel, "model-" + std::to_string(random_() % 3),
                     static_cast<protocol::QueueMode>(1 + random_() % 3)};
    }
    if (choice < 80 && !model.ended.empty()) return about_ended(model);
    Finished record = finished(order, text());
    record.result.job = job.accepted.job;
    record.result.losses = job.losses;
    record.result.state = static_cast<protocol::JobState>(3 + random_() % 5);
    record.token = job.lease;
    if (random_() % 8 == 0) record.token = {term, lease_ + 1'000'000};  // a lease that is not the job's
    return record;
  }

  Record accept() {
    Accepted record = accepted(++order_, text() + "x");
    record.encoded_spec = protocol::encode_job_spec(record.spec);
    return record;
  }

  Record about_ended(const Model& model) {
    const uint64_t order = pick(model.ended);
    const Model::Ended& ended = model.ended.at(order);
    if (ended.result.state != protocol::JobState::kDead) {
      Finished second = finished(order, "a second end");
      second.result.job = ended.result.job;
      return second;
    }
    Requeued record;
    record.dead_order = order;
    record.accepted = accepted(++order_);
    record.accepted.job = ended.result.job;
    record.accepted.spec = ended.spec;
    return record;
  }

  std::mt19937_64& random_;
  uint64_t order_ = 0;
  uint64_t lease_ = 0;
};

}  // namespace optserve::journal::testing
