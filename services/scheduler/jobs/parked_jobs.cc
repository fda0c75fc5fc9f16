#include "scheduler/jobs/parked_jobs.h"

#include <cstring>
#include <utility>

#include "base/check.h"
#include "protocol/codec.h"

namespace optserve::scheduler {
namespace {

// Numbers and texts one after the other, as they are in memory: they are read by the process that wrote them.
class Writer {
 public:
  template <class T>
  void number(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view value) {
    number(static_cast<uint32_t>(value.size()));
    bytes += value;
  }
  void ids(const std::vector<TokenId>& ids) {
    text({reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(TokenId)});
  }
  std::string bytes;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  template <class T>
  T number() {
    T value{};
    std::memcpy(&value, next(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view text() { return next(number<uint32_t>()); }
  std::vector<TokenId> ids() {
    const std::string_view bytes = text();
    std::vector<TokenId> ids(bytes.size() / sizeof(TokenId));
    if (!ids.empty()) std::memcpy(ids.data(), bytes.data(), bytes.size());
    return ids;
  }
  bool is_at_end() const { return left_.empty(); }

 private:
  std::string_view next(size_t size) {
    check(size <= left_.size(), "a parked job is read as it was written");
    const std::string_view bytes = left_.substr(0, size);
    left_.remove_prefix(size);
    return bytes;
  }
  std::string_view left_;
};

constexpr bool is_wait(Stage stage) { return stage == Stage::kWaiting || stage == Stage::kDelayed; }

}  // namespace

void Job::load_body() {
  check(parked_in_ != nullptr, "a job without a body is parked");
  parked_in_->load(*this);
}

void ParkedJobs::park_in(std::unique_ptr<BodyFile> file, size_t in_memory_max) {
  file_ = std::move(file);
  in_memory_max_ = in_memory_max;
}

void ParkedJobs::rest(Resting& in, Job& job) {
  JobBody& body = *job.body_;
  body.resting_in_ = &in;
  body.resting_at_ = in.insert(in.end(), &job);
}

void ParkedJobs::waits(Job& job) {
  if (file_ && !job.is_parked() && job.body_->resting_in_ == nullptr) rest(arrived_, job);
}

void ParkedJobs::left(Job& job) {
  if (job.is_parked() || job.body_->resting_in_ == nullptr) return;
  std::exchange(job.body_->resting_in_, nullptr)->erase(job.body_->resting_at_);
}

void ParkedJobs::park_excess() {
  for (Resting* jobs : {&arrived_, &read_back_}) {
    while (jobs->size() > in_memory_max_) {
      Job& job = jobs == &arrived_ ? *jobs->back() : *jobs->front();
      left(job);
      if (can_park(*job.body_) && !park(job)) {
        rest(*jobs, job);  // another turn may find room
        return;
      }
    }
  }
}

bool ParkedJobs::can_park(const JobBody& body) {
  const JobAttempts& attempts = body.attempts;
  const JobFollowers& followers = body.followers;
  const bool ran = attempts.started || attempts.count > 0 || attempts.crashes > 0 || attempts.last_lease != 0 ||
                   !attempts.losses.empty() || !attempts.tries.empty() || !body.output.ids.empty();
  const bool is_followed = !followers.subscriptions.empty() || followers.events_pending || followers.tell_anyway ||
                           followers.place_pending || followers.watched || followers.abandoned_at != Instant{};
  return !ran && !is_followed && body.question.state_ == TokenizerQuestion::State::kNone && body.question.tries_ == 0;
}

bool ParkedJobs::park(Job& job) {
  const JobBody& body = *job.body_;
  const JobPrompt& prompt = body.prompt;
  Writer out;
  out.text(body.payload_sha256);
  out.text(protocol::encode_job_spec(body.spec));
  const bool same_ids = prompt.ids == body.spec.prompt_ids;
  out.number(same_ids);
  if (!same_ids) out.ids(prompt.ids);
  out.number(prompt.bytes_shown);
  out.number(static_cast<uint32_t>(prompt.bad_word_ids.size()));
  for (const auto& word : prompt.bad_word_ids) out.ids(word);
  out.number(body.question.avoid_);
  out.number(body.followers.told_position);
  out.number(body.followers.told_eta_ms);
  const auto at = file_->put(out.bytes);
  if (!at) return false;
  job.parked_in_ = this;
  job.parked_at_ = *at;
  job.body_.reset();
  return true;
}

void ParkedJobs::load(Job& job) {
  const std::string bytes = file_->take(job.parked_at_);
  Reader in(bytes);
  auto body = std::make_unique<JobBody>();
  body->payload_sha256 = in.text();
  body->spec = protocol::decode_job_spec(in.text()).value();
  body->prompt.ids = in.number<bool>() ? body->spec.prompt_ids : in.ids();
  body->prompt.bytes_shown = in.number<size_t>();
  body->prompt.bad_word_ids.resize(in.number<uint32_t>());
  for (auto& word : body->prompt.bad_word_ids) word = in.ids();
  body->question.avoid_ = in.number<InstanceId>();
  body->followers.told_position = in.number<uint32_t>();
  body->followers.told_eta_ms = in.number<int64_t>();
  check(in.is_at_end(), "a parked job is read as it was written");
  job.body_ = std::move(body);
  if (is_wait(job.stage())) rest(read_back_, job);
}

}  // namespace optserve::scheduler
