#include "gateway/service/job_events_call.h"

#include <utility>
#include <vector>

#include "gateway/service/answers.h"
#include "http_api/openai/completion_stream.h"

namespace optserve::gateway {
namespace {

constexpr seconds kEventsKeepAliveInterval{15};  // proxies give up a silent stream after 60 s

class JobEventsCall final : public OpenCall, public std::enable_shared_from_this<JobEventsCall> {
 public:
  JobEventsCall(const GatewayParts& parts, std::shared_ptr<http::Exchange> exchange,
                std::unique_ptr<http_api::FollowForm> form)
      : parts_(parts), exchange_(std::move(exchange)), events_(std::move(form)) {}

  void start(const JobId& job, uint64_t offset);
  void on_tick(Instant now) override {
    if (now - last_sent_ >= kEventsKeepAliveInterval) write(std::string(http_api::kKeepAliveFrame));
  }
  void give_up(const http_api::ApiError& why) override;

 private:
  template <class Work>
  void post(Work work);
  void on_attached(const Result<client::Follow>& attached);
  void write(const std::string& frames);
  void end();

  const GatewayParts parts_;
  std::shared_ptr<http::Exchange> exchange_;
  std::unique_ptr<http_api::FollowForm> events_;
  std::vector<client::Follow> follows_;
  std::string early_;  // frames before the answer to the attach
  Instant last_sent_{};
  bool is_attached_ = false, is_over_ = false;
};

template <class Work>
void JobEventsCall::post(Work work) {
  parts_.server.post([self = shared_from_this(), work = std::move(work)] {
    if (!self->is_over_) self->write(work(*self->events_));
  });
}

void JobEventsCall::start(const JobId& job, uint64_t offset) {
  const auto self = shared_from_this();
  parts_.calls.add(self);
  exchange_->on_closed([self] { self->end(); });
  exchange_->on_half_closed([self] { self->write(std::string(http_api::kKeepAliveFrame)); });
  client::JobStream stream;
  stream.on_progress = [self](const protocol::JobEvent& event) {
    self->post([event](http_api::FollowForm& events) { return events.on_progress(event); });
  };
  stream.on_text = [self](std::string_view piece, const protocol::JobEvent&) {
    self->post([text = std::string(piece)](http_api::FollowForm& events) { return events.on_text(text); });
  };
  stream.on_restarted = [self](const JobId&) {
    self->post([](http_api::FollowForm& events) { return events.on_restarted(); });
  };
  stream.on_finished = [self](const protocol::JobResult& result) {
    self->post([result](http_api::FollowForm& events) { return events.on_finished(result); });
  };
  stream.on_lost = [self](const JobId&, const Refusal& why) {
    self->post([why](http_api::FollowForm& events) { return events.on_lost(why); });
  };
  exchange_->request().note("job", job.hex());
  parts_.client.attach(job, offset, std::move(stream), [self](const Result<client::Follow>& attached) {
    self->parts_.server.post([self, attached] { self->on_attached(attached); });
  });
}

void JobEventsCall::on_attached(const Result<client::Follow>& attached) {
  if (attached.ok()) follows_ = {attached.value()};
  if (is_over_) return end();  // gives the stream up
  if (!attached.ok()) {
    exchange_->answer(error_answer(http_api::error_of(attached.refusal())));
    return end();
  }
  is_attached_ = true;
  exchange_->begin_stream(200, http::sse_headers());
  write(events_->begin() + std::exchange(early_, {}));
}

void JobEventsCall::write(const std::string& frames) {
  if (is_over_) return;
  if (!is_attached_) {
    early_ += frames;
    return;
  }
  last_sent_ = parts_.clock.now();
  exchange_->write(frames);
  if (is_over_ || !events_->is_over()) return;
  exchange_->end();
  end();
}

void JobEventsCall::give_up(const http_api::ApiError& why) {
  if (is_attached_) {
    exchange_->abort();  // the client reconnects to another gateway and continues at its byte
  } else {
    exchange_->answer(error_answer(why));
  }
  end();
}

void JobEventsCall::end() {
  is_over_ = true;
  parts_.client.unfollow(std::exchange(follows_, {}));
  parts_.calls.remove(*this);
}

}  // namespace

void follow_job(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange, const JobId& job,
                uint64_t offset, std::unique_ptr<http_api::FollowForm> form) {
  std::make_shared<JobEventsCall>(parts, exchange, std::move(form))->start(job, offset);
}

void serve_job_events(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange, const JobId& job) {
  const http_api::Parsed<uint64_t> offset =
      http_api::parse_last_event_id(exchange->request().headers.get("Last-Event-ID"));
  if (!offset.ok()) return exchange->answer(error_answer(offset.error()));
  follow_job(parts, exchange, job, offset.value(), std::make_unique<http_api::JobEventStream>(offset.value()));
}

}  // namespace optserve::gateway
