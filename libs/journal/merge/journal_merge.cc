#include "journal/merge/journal_merge.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <unordered_map>
#include <utility>

#include "journal/journal_storage.h"
#include "journal/merge/merge_plan.h"
#include "protocol/codec.h"

namespace optserve::journal {
namespace {

using protocol::JobResult;
using protocol::JobState;

constexpr uint32_t kWindow = 256;  // ended jobs that are looked at in one go

std::unique_ptr<JournalStorage> open_storage(const JournalOptions& options, const Clock& clock, Recovery& recovery) {
  if (is_postgres_url(options.path)) return open_postgres_storage(options, clock, recovery);
  if (!std::filesystem::is_regular_file(options.path)) throw Error("journal " + options.path + ": no such file");
  return open_sqlite_storage(options, clock, recovery);
}

std::string name_of(const JournalOptions& options) {
  return is_postgres_url(options.path) ? "queue '" + options.queue + "'" : options.path;
}

// Both are files that exist, or URLs.
void check_two_journals(const JournalOptions& a, const JournalOptions& b) {
  std::error_code failure;
  const bool is_same = a.path == b.path ? !is_postgres_url(a.path) || a.queue == b.queue
                                        : std::filesystem::equivalent(a.path, b.path, failure) && !failure;
  if (is_same) throw Error(name_of(a) + " cannot be merged into itself");
}

class Merge {
 public:
  Merge(const MergeOptions& options, const Clock& clock) : options_(options), clock_(clock) {
    from_ = open_storage(options.from, clock, from_found_);
    JournalOptions into = options.into;
    into.term_above = from_found_.term;
    into_ = open_storage(into, clock, into_found_);
    plan_ = std::make_unique<MergePlan>(into_found_);
    next_order_ = into_found_.next_order;
    const Instant now = clock.now();
    shift_ms_ = into_->time().ms(now) - from_->time().ms(now);
    outcome_.term = into_found_.term;
  }

  MergeOutcome run() {
    if (!options_.belongs) drain();
    move_ended();
    for (OpenJob& open : from_found_.open) move_open(std::move(open));
    write();
    into_->close();
    from_->close();
    return std::move(outcome_);
  }

 private:
  void drain() {
    const auto is_set = [](const ModeSet& held) {
      return held.scope == protocol::ControlScope::kQueue && held.mode == protocol::QueueMode::kDraining;
    };
    if (std::ranges::any_of(from_found_.modes, is_set)) return;
    const Record mode = ModeSet{protocol::ControlScope::kQueue, "", protocol::QueueMode::kDraining};
    if (!from_->commit({&mode, 1})) fail_full(options_.from);
  }

  void move_ended() {
    std::unordered_map<JobId, KnownKey> keys;
    for (KnownKey& known : from_found_.keys) keys.insert_or_assign(known.job, std::move(known));
    for (ListEnded question; true;) {
      const EndedPart<protocol::JobSummary> part = from_->list_ended(question, kWindow);
      for (const protocol::JobSummary& about : part.items) {
        const auto known = keys.find(about.job);
        if (known != keys.end()) move_ended(about, known->second);
      }
      if (part.is_last) return;
      question.after = part.last;
    }
  }

  void move_ended(const protocol::JobSummary& about, const KnownKey& known) {
    if (!belongs(known.tenant, known.key)) return;
    std::optional<JobResult> result = from_->find_result(about.job).result;
    if (!result) return;  // expired meanwhile
    const Decision decision =
        plan_->decide(known.tenant, known.key, {about.job, 0, known.payload_sha256, result->state});
    if (!takes(decision, known.tenant, known.key, about.job, about.order)) return;
    Finished ended;
    ended.expires_at_ms = known.expires_at_ms + shift_ms_;
    ended.accepted_wall_ms = about.accepted_wall_ms;
    ended.tenant = known.tenant;
    ended.model = about.model;
    ended.payload_sha256 = known.payload_sha256;
    if (result->state == JobState::kDead) {
      if (const DeadFound dead = from_->find_dead(about.job); dead.job) {
        ended.encoded_spec = protocol::encode_job_spec(dead.job->spec);
      }
    }
    ended.result = std::move(*result);
    if (decision.fate == Fate::kEndsOther) {
      Finished others = ended;
      others.order = decision.other.order;
      others.result.job = decision.other.job;
      step_.records.emplace_back(std::move(others));
    }
    if (decision.fate == Fate::kMoves) {
      ++outcome_.ended;
    } else {
      give_own_key(ended.result);
    }
    add_ended(std::move(ended));
  }

  void move_open(OpenJob open) {
    Accepted& job = open.accepted;
    if (!belongs(job.spec.tenant, job.spec.key)) return;
    const uint64_t order = job.order;
    const Decision decision =
        plan_->decide(job.spec.tenant, job.spec.key, {job.job, next_order_, job.payload_sha256, JobState::kQueued});
    if (!takes(decision, job.spec.tenant, job.spec.key, job.job, order)) return;
    if (decision.fate != Fate::kMoves) return end_duplicate(job, decision);
    ++outcome_.open;
    job.order = next_order_++;
    job.accepted_at_ms += shift_ms_;
    job.encoded_spec = protocol::encode_job_spec(job.spec);
    count(job.encoded_spec.size() + open.progress.size() * sizeof(TokenId));
    const JobId id = job.job;
    const uint64_t new_order = job.order;
    step_.records.emplace_back(std::move(job));
    for (std::string& loss : open.losses) {
      step_.records.emplace_back(Leased{id, new_order, {}, open.attempts, std::move(loss)});
    }
    if (!open.progress.empty()) step_.records.emplace_back(Progress{id, new_order, std::move(open.progress)});
    step_.adopted.push_back({new_order, open.attempts, open.crashes});
  }

  // An open job whose work the other job with its key does, or has done.
  void end_duplicate(const Accepted& job, const Decision& decision) {
    Finished ended;
    ended.accepted_wall_ms = job.accepted_wall_ms;
    ended.tenant = job.spec.tenant;
    ended.model = job.spec.model;
    ended.payload_sha256 = job.payload_sha256;
    ended.expires_at_ms = into_->time().ms(clock_.now()) + job.spec.result_ttl_ms;
    if (decision.fate == Fate::kTakesResult) {
      if (auto others = into_->find_result(decision.other.job).result) ended.result = std::move(*others);
    }
    if (ended.result.state == JobState::kQueued) {
      ended.result.state = JobState::kCancelled;
      ended.result.error = ErrorCode::kCancelled;
      ended.result.message = "the key and the payload are those of job " + decision.other.job.hex() +
                             ", which was in the queue into which this one was merged";
      ended.result.tenant = job.spec.tenant;
      ended.result.group = job.spec.group;
      ended.result.kind = job.spec.kind;
    }
    ended.result.job = job.job;
    ended.encoded_spec = protocol::encode_job_spec(job.spec);
    give_own_key(ended.result);
    add_ended(std::move(ended));
  }

  // The job is found by its id; its key stands for another job.
  void give_own_key(JobResult& result) {
    result.key = result.job.hex();
    ++outcome_.duplicates;
  }

  // A job must be open before it can end.
  void add_ended(Finished ended) {
    static const std::string kNoSpec = protocol::encode_job_spec({});
    Accepted accepted;
    accepted.job = ended.result.job;
    accepted.order = ended.order = next_order_++;
    accepted.payload_sha256 = ended.payload_sha256;
    accepted.encoded_spec = ended.encoded_spec.empty() ? kNoSpec : ended.encoded_spec;
    count(ended.encoded_spec.size() + ended.result.text.size() + ended.result.ids.size() * sizeof(TokenId));
    step_.records.emplace_back(std::move(accepted));
    step_.records.emplace_back(std::move(ended));
  }

  bool belongs(const std::string& tenant, const std::string& key) {
    const bool is_ours = !options_.belongs || options_.belongs(tenant, key);
    if (!is_ours) ++outcome_.stayed;
    return is_ours;
  }

  // False if nothing is to be written for the job.
  bool takes(const Decision& decision, const std::string& tenant, const std::string& key, const JobId& job,
             uint64_t order) {
    if (decision.fate == Fate::kConflicts) {
      outcome_.conflicts.push_back({tenant, key, job, decision.other.job});
      return false;
    }
    // The other's result may be among those that wait.
    const bool needs_result = decision.fate == Fate::kTakesResult;
    if (needs_result || left_.size() >= options_.batch_jobs || bytes_ >= options_.batch_bytes) write();
    left_.push_back({order, job});
    if (decision.fate != Fate::kIsThere) return true;
    ++outcome_.known;
    return false;
  }

  void count(size_t bytes) { bytes_ += bytes; }

  void write() {
    if (!step_.records.empty() && !into_->merge(step_)) fail_full(options_.into);
    if (!left_.empty()) {
      MergeStep gone;
      gone.left = left_;
      if (!from_->merge(gone)) fail_full(options_.from);
    }
    step_ = {};
    left_.clear();
    bytes_ = 0;
    std::vector<Answer> none;
    for (const auto& storage : {from_.get(), into_.get()}) {
      storage->after_commit();
      storage->keep_up(none);
    }
  }

  [[noreturn]] static void fail_full(const JournalOptions& options) {
    throw Error("journal " + name_of(options) +
                ": its disk is full; make room and repeat the merge, which goes on where it was");
  }

  const MergeOptions& options_;
  const Clock& clock_;
  Recovery from_found_, into_found_;
  std::unique_ptr<JournalStorage> from_, into_;
  std::unique_ptr<MergePlan> plan_;
  uint64_t next_order_ = 1;
  int64_t shift_ms_ = 0;  // from the time of one journal to that of the other
  MergeStep step_;        // for the remaining journal
  std::vector<MergeStep::Left> left_;
  size_t bytes_ = 0;
  MergeOutcome outcome_;
};

}  // namespace

MergeOutcome merge_journals(const MergeOptions& options, const Clock& clock) {
  check_two_journals(options.from, options.into);
  return Merge(options, clock).run();
}

}  // namespace optserve::journal
