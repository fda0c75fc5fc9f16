#include "gateway/service/completion_call.h"

#include <charconv>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "gateway/service/counting_stream.h"
#include "http_api/metaseq/metaseq_request.h"
#include "http_api/openai/completion_stream.h"

namespace optserve::gateway {
namespace {

using protocol::JobEvent;
using protocol::JobResult;

constexpr seconds kKeepAliveInterval{15};        // proxies give up a silent stream after 60 s
constexpr seconds kReachabilityInterval{5};      // how often a call asks whether its scheduler is there
constexpr milliseconds kUnreachableMax{60'000};  // after which its answer is an error

// A job's events come on the client's thread and are handed to the server's, in their order. They may come before the
// answer to the submit, and then wait for it.
class CompletionCall final : public OpenCall, public std::enable_shared_from_this<CompletionCall> {
 public:
  CompletionCall(const GatewayParts& parts, std::shared_ptr<http::Exchange> exchange,
                 http_api::CompletionRequest request, AnswerForm form)
      : parts_(parts),
        exchange_(std::move(exchange)),
        request_(std::move(request)),
        form_(std::move(form)),
        answer_(request_) {}

  void start(std::shared_ptr<OpenJobs> open_jobs);
  void on_tick(Instant now) override;
  void give_up(const http_api::ApiError& why) override { fail(why); }

 private:
  client::JobStream stream_of_jobs();
  // From any thread: `work` runs on the server's thread, unless the call is over.
  template <class Work>
  void post(Work work);
  template <class Work>
  void post_event(Work work);

  void on_submitted(client::Submission submission);
  void begin_answer(const std::vector<protocol::SubmitOutcome>& outcomes);
  void on_text(const JobId& job, const std::string& piece);
  void on_restarted(const JobId& job);
  void on_finished(const JobResult& result);
  void on_lost(const JobId& job, const Refusal& why);
  void write(std::string_view frames);
  void end_stream_if_over();
  void fail(const http_api::ApiError& why);
  void cancel_jobs();
  void end();

  const GatewayParts parts_;
  std::shared_ptr<http::Exchange> exchange_;
  const http_api::CompletionRequest request_;
  const AnswerForm form_;
  http_api::CompletionAnswer answer_;
  std::optional<http_api::CompletionStream> stream_;
  bool has_key_ = false;  // the client named the jobs
  bool is_submitted_ = false, is_over_ = false, is_wanted_ = true;
  std::vector<std::function<void()>> early_;      // events before the answer to the submit
  std::map<JobId, std::vector<size_t>> indices_;  // equal keys can make several of our jobs one
  std::set<JobId> open_jobs_;                     // that were accepted and have not ended, and are this call's alone
  std::vector<client::Follow> follows_;
  Instant last_sent_{}, last_asked_{};
  std::shared_ptr<OpenJobs> open_jobs_of_key_;
};

template <class Work>
void CompletionCall::post(Work work) {
  parts_.server.post([self = shared_from_this(), work = std::move(work)]() mutable { work(*self); });
}

template <class Work>
void CompletionCall::post_event(Work work) {
  post([work = std::move(work)](CompletionCall& self) mutable {
    if (self.is_over_) return;
    if (self.is_submitted_) return work(self);
    self.early_.push_back([&self, work = std::move(work)]() mutable {
      if (!self.is_over_) work(self);
    });
  });
}

client::JobStream CompletionCall::stream_of_jobs() {
  const auto self = shared_from_this();
  client::JobStream stream;
  stream.on_restarted = [self](const JobId& job) {
    self->post_event([job](CompletionCall& call) { call.on_restarted(job); });
  };
  stream.on_text = [self](std::string_view piece, const JobEvent& event) {
    if (!self->request_.stream) return;
    self->post_event([job = event.job, text = std::string(piece)](CompletionCall& call) { call.on_text(job, text); });
  };
  stream.on_finished = [self](const JobResult& result) {
    self->post_event([result](CompletionCall& call) { call.on_finished(result); });
  };
  stream.on_lost = [self](const JobId& job, const Refusal& why) {
    self->post_event([job, why](CompletionCall& call) { call.on_lost(job, why); });
  };
  return stream;
}

void CompletionCall::start(std::shared_ptr<OpenJobs> open_jobs) {
  open_jobs_of_key_ = open_jobs;
  const auto self = shared_from_this();
  parts_.calls.add(self);
  exchange_->on_closed([self] {
    self->is_wanted_ = false;
    if (!self->request_.keeps_running) self->cancel_jobs();
    if (self->is_submitted_) self->end();
  });
  exchange_->on_half_closed([self] {
    if (self->stream_) self->write(self->stream_->keep_alive());
  });
  last_asked_ = parts_.clock.now();
  std::vector<protocol::JobSpec> jobs = request_.jobs();
  has_key_ = !jobs.front().key.empty();
  parts_.client.submit(std::move(jobs), request_.background ? counting_stream(open_jobs) : stream_of_jobs(),
                       [self](client::Submission submission) {
                         self->post([submission = std::move(submission)](CompletionCall& call) mutable {
                           call.on_submitted(std::move(submission));
                         });
                       });
}

void CompletionCall::on_submitted(client::Submission submission) {
  if (is_over_) return;
  is_submitted_ = true;
  follows_ = std::move(submission.follows);
  if (!submission.outcomes.ok()) return fail(http_api::error_of(submission.outcomes.refusal()));
  const std::vector<protocol::SubmitOutcome>& outcomes = submission.outcomes.value();
  for (size_t i = 0; i < outcomes.size(); ++i) {
    if (!outcomes[i].job) continue;
    indices_[*outcomes[i].job].push_back(i);
    // If the client gave no key, a job that is reported as a repetition belongs to this call too: an answer was lost,
    // and the job was sent again.
    if (!outcomes[i].duplicate || !has_key_) open_jobs_.insert(*outcomes[i].job);
  }
  if (!indices_.empty()) exchange_->request().note("job", indices_.begin()->first.hex());
  if (!is_wanted_) {
    if (!request_.keeps_running) cancel_jobs();
    return end();
  }
  if (auto error = http_api::first_error(outcomes, request_.model.context)) return fail(*error);
  begin_answer(outcomes);
}

void CompletionCall::begin_answer(const std::vector<protocol::SubmitOutcome>& outcomes) {
  if (request_.background) {
    exchange_->answer(form_.background(request_, outcomes));
    return end();
  }
  if (request_.stream) {
    stream_.emplace(request_, form_.stream(request_, outcomes));
    last_sent_ = parts_.clock.now();
    http::Headers headers = http::sse_headers();
    headers.set("Content-Type", form_.stream_type);
    exchange_->begin_stream(200, headers);
    write(stream_->on_start());
  }
  for (auto& event : std::exchange(early_, {})) event();
}

void CompletionCall::on_text(const JobId& job, const std::string& piece) {
  const auto found = indices_.find(job);
  if (!stream_ || found == indices_.end()) return;
  std::string frames;
  for (const size_t index : found->second) frames += stream_->on_text(index, piece);
  write(frames);
  end_stream_if_over();
}

void CompletionCall::on_restarted(const JobId& job) {
  const auto found = indices_.find(job);
  if (!stream_ || found == indices_.end()) return;
  std::string frames;
  for (const size_t index : found->second) frames += stream_->on_restarted(index);
  write(frames);
  end_stream_if_over();
}

void CompletionCall::on_finished(const JobResult& result) {
  const auto found = indices_.find(result.job);
  if (found == indices_.end()) return;
  open_jobs_.erase(result.job);
  if (stream_) {
    std::string frames;
    for (const size_t index : found->second) frames += stream_->on_finished(index, result);
    write(frames);
    return end_stream_if_over();
  }
  for (const size_t index : std::exchange(found->second, {})) answer_.add(index, result);
  if (!answer_.is_complete()) return;
  if (const auto error = answer_.error()) return fail(*error);
  exchange_->answer(json_answer(form_.body(request_, answer_)));
  end();
}

void CompletionCall::on_lost(const JobId& job, const Refusal& why) {
  const auto found = indices_.find(job);
  if (found == indices_.end() || found->second.empty()) return;
  open_jobs_.erase(job);
  if (!stream_) return fail(http_api::error_of(why, 0, request_.model.context));
  write(stream_->on_lost(found->second.front(), why));
  end_stream_if_over();
}

void CompletionCall::write(std::string_view frames) {
  if (frames.empty() || !exchange_->is_open() || !exchange_->is_streaming()) return;
  last_sent_ = parts_.clock.now();
  exchange_->write(frames);
}

void CompletionCall::end_stream_if_over() {
  if (is_over_ || !stream_->is_over()) return;
  exchange_->end();
  if (stream_->has_failed()) cancel_jobs();
  end();
}

void CompletionCall::fail(const http_api::ApiError& why) {
  if (is_over_) return;
  if (stream_) {
    write(stream_->on_error(why));
    return end_stream_if_over();
  }
  exchange_->answer(form_.error(why));
  cancel_jobs();
  end();
}

// Jobs of an earlier request with the same key may be somebody else's answer, and go on.
void CompletionCall::cancel_jobs() {
  for (const JobId& job : std::exchange(open_jobs_, {})) {
    ++parts_.open_cancels;
    parts_.client.cancel(job, [&open = parts_.open_cancels](const auto&) { --open; });
  }
}

void CompletionCall::end() {
  is_over_ = true;
  early_.clear();
  open_jobs_of_key_.reset();
  if (request_.background) follows_.clear();  // they count the jobs until these end
  parts_.client.unfollow(std::exchange(follows_, {}));
  parts_.calls.remove(*this);
}

void CompletionCall::on_tick(Instant now) {
  if (stream_ && now - last_sent_ >= kKeepAliveInterval) write(stream_->keep_alive());
  if (is_over_ || indices_.empty() || now - last_asked_ < kReachabilityInterval) return;
  last_asked_ = now;
  parts_.client.unreachable_for(indices_.begin()->first, [self = shared_from_this()](milliseconds time) {
    if (time < kUnreachableMax) return;
    self->post_event([](CompletionCall& call) {
      call.fail(http_api::unavailable("the scheduler of this request does not answer"));
    });
  });
}

// How long the client waits for an answer, in seconds, as the official clients state it; 0: not stated.
int64_t patience_ms(const http::Request& request) {
  for (const char* name : {"x-stainless-read-timeout", "x-stainless-timeout"}) {
    const std::string_view text = request.headers.get(name);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value > 0 && value < 1e7) {
      return static_cast<int64_t>(value * 1'000);
    }
  }
  return 0;
}

}  // namespace

http_api::RequestContext context_of(const GatewayParts& parts, const http::Request& request) {
  http_api::RequestContext context;
  context.request_id = request.id;
  context.created = parts.clock.wall_ms() / 1'000;
  context.random = std::hash<Id128>()(Id128::random());
  context.tenant = caller_of(request).tenant;
  context.idempotency_key = request.headers.get("Idempotency-Key");
  context.patience_ms = patience_ms(request);
  context.traceparent = request.note("traceparent");
  context.chat = parts.chat_template;
  return context;
}

void serve_call(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange,
                http_api::Parsed<http_api::CompletionRequest> parsed, AnswerForm form) {
  if (!parsed.ok()) return exchange->answer(form.error(parsed.error()));
  http::Request& request = exchange->request();
  if (!parsed.value().job.tenant.empty()) request.note("tenant", parsed.value().job.tenant);
  http_api::Parsed<std::shared_ptr<OpenJobs>> open_jobs = parts.access.open_jobs(request, parsed.value().num_jobs());
  if (!open_jobs.ok()) return exchange->answer(form.error(open_jobs.error()));
  std::make_shared<CompletionCall>(parts, exchange, std::move(parsed).value(), std::move(form))
      ->start(std::move(open_jobs).value());
}

void serve_completion(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange) {
  const http::Request& request = exchange->request();
  AnswerForm form;
  form.body = [](const http_api::CompletionRequest&, const http_api::CompletionAnswer& answer) {
    return answer.body();
  };
  form.stream = [](const http_api::CompletionRequest& made, const AnswerForm::Outcomes&) {
    return http_api::completion_form(made);
  };
  form.background = [](const http_api::CompletionRequest& made, const AnswerForm::Outcomes& outcomes) {
    return json_answer(http_api::background_body(made, outcomes), 202);
  };
  serve_call(parts, exchange, http_api::parse_completion(request.body, parts.models, context_of(parts, request)),
             std::move(form));
}

void serve_metaseq(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange) {
  const http::Request& request = exchange->request();
  AnswerForm form;
  form.body = http_api::metaseq_body;
  serve_call(parts, exchange, http_api::parse_metaseq(request.body, parts.models, context_of(parts, request)),
             std::move(form));
}

}  // namespace optserve::gateway
