#include "client/client.h"

#include <future>

#include "base/clock.h"
#include "client/async_client.h"
#include "client/future.h"

namespace optserve::client {
namespace {

using protocol::JobResult;

// Runs `start(done)` and waits until `done` was called with the answer.
template <class T, class Start>
T answer_of(const AsyncClient& client, Start start) {
  check(!client.is_own_thread(), "a callback of a client waits for an answer of the same client");
  return future_of<T>(std::move(start)).get();
}

// The end of a job that is streamed.
struct Ending {
  std::shared_ptr<std::promise<Result<JobResult>>> promise = std::make_shared<std::promise<Result<JobResult>>>();
  std::future<Result<JobResult>> future = promise->get_future();

  void complete(JobStream& stream) const {
    stream.on_finished = [promise = promise](const JobResult& result) { promise->set_value(result); };
    stream.on_lost = [promise = promise](const JobId&, const Refusal& why) { promise->set_value(why); };
  }
};

Submission submit_to(AsyncClient& client, std::vector<protocol::JobSpec> jobs, JobStream stream) {
  return answer_of<Submission>(client,
                               [&](auto done) { client.submit(std::move(jobs), std::move(stream), std::move(done)); });
}

Result<Follow> attach_to(AsyncClient& client, const JobId& job, uint64_t text_offset, JobStream stream) {
  return answer_of<Result<Follow>>(
      client, [&](auto done) { client.attach(job, text_offset, std::move(stream), std::move(done)); });
}

// After it returns, nothing more is delivered to these streams.
void unfollow_at(AsyncClient& client, std::vector<Follow> follows) {
  answer_of<bool>(client, [&](auto done) { client.unfollow(std::move(follows), [done] { done(true); }); });
}

}  // namespace

Client::Client(const ClientOptions& options) : async_(std::make_unique<AsyncClient>(options)) {}
Client::~Client() = default;

Result<std::vector<protocol::SubmitOutcome>> Client::submit(std::vector<protocol::JobSpec> jobs, JobStream stream) {
  return submit_to(*async_, std::move(jobs), std::move(stream)).outcomes;
}

Status Client::attach(const JobId& job, uint64_t text_offset, JobStream stream) {
  const auto attached = attach_to(*async_, job, text_offset, std::move(stream));
  return attached.ok() ? ok_status() : Status(attached.refusal());
}

Result<JobResult> Client::generate(protocol::JobSpec job, std::function<void(std::string_view piece)> on_text) {
  const std::chrono::milliseconds life(job.delay_ms + job.ttl_ms);
  Ending ending;
  JobStream stream;
  if (on_text) stream.on_text = [on_text](std::string_view piece, const protocol::JobEvent&) { on_text(piece); };
  ending.complete(stream);
  const auto submission = submit_to(*async_, {std::move(job)}, std::move(stream));
  if (!submission.outcomes.ok()) return submission.outcomes.refusal();
  const protocol::SubmitOutcome& outcome = submission.outcomes.value().at(0);
  if (!outcome.job) return refuse(outcome.error.value_or(ErrorCode::kInternal), outcome.message);
  if (ending.future.wait_for(life + async_->options().timeout) == std::future_status::ready) return ending.future.get();
  unfollow_at(*async_, submission.follows);
  return refuse(ErrorCode::kUnavailable, "job " + outcome.job->hex() + ": no result within its time to live");
}

std::future<Result<JobResult>> Client::start(protocol::JobSpec job,
                                             std::function<void(std::string_view piece)> on_text) {
  return future_of<Result<JobResult>>([&](auto done) {
    JobStream stream;
    if (on_text) stream.on_text = [on_text](std::string_view piece, const protocol::JobEvent&) { on_text(piece); };
    stream.on_finished = [done](const JobResult& result) { done(result); };
    stream.on_lost = [done](const JobId&, const Refusal& why) { done(why); };
    async_->submit({std::move(job)}, std::move(stream), [done](const Submission& submission) {
      if (!submission.outcomes.ok()) return done(submission.outcomes.refusal());
      const protocol::SubmitOutcome& outcome = submission.outcomes.value().at(0);
      if (!outcome.job) done(refuse(outcome.error.value_or(ErrorCode::kInternal), outcome.message));
    });
  });
}

Result<JobResult> Client::cancel(const JobId& job) { return cancel(job, async_->options().timeout); }

Result<JobResult> Client::cancel(const JobId& job, std::chrono::milliseconds within) {
  return answer_of<Result<JobResult>>(*async_, [&](auto done) { async_->cancel(job, std::move(done), within); });
}

std::chrono::milliseconds Client::unreachable_for(const JobId& job) {
  return answer_of<std::chrono::milliseconds>(*async_,
                                              [&](auto done) { async_->unreachable_for(job, std::move(done)); });
}

Result<JobResult> Client::get(const JobId& job) {
  return answer_of<Result<JobResult>>(*async_, [&](auto done) { async_->get(job, std::move(done)); });
}

Result<JobResult> Client::requeue(const JobId& job) {
  return answer_of<Result<JobResult>>(*async_, [&](auto done) { async_->requeue(job, std::move(done)); });
}

Result<JobResult> Client::wait(const JobId& job, std::chrono::milliseconds wait) {
  const auto until = async_->clock().now() + wait;
  auto state = get(job);
  if (!state.ok() || protocol::is_terminal(state.value().state)) return state;
  Ending ending;
  JobStream stream;
  ending.complete(stream);
  const auto follow = attach_to(*async_, job, 0, std::move(stream));
  if (!follow.ok()) return follow.refusal();
  if (ending.future.wait_until(until) == std::future_status::ready) return ending.future.get();
  unfollow_at(*async_, {follow.value()});
  return get(job);
}

Result<protocol::GroupStatus> Client::group(const std::string& tenant, const std::string& group) {
  return answer_of<Result<protocol::GroupStatus>>(
      *async_, [&](auto done) { async_->group(tenant, group, false, std::move(done)); });
}

Result<protocol::GroupStatus> Client::cancel_group(const std::string& tenant, const std::string& group) {
  return answer_of<Result<protocol::GroupStatus>>(
      *async_, [&](auto done) { async_->group(tenant, group, true, std::move(done)); });
}

Answers<protocol::SystemStatus> Client::status() { return status(async_->options().timeout); }

Answers<protocol::SystemStatus> Client::status(std::chrono::milliseconds within) {
  return answer_of<Answers<protocol::SystemStatus>>(*async_,
                                                    [&](auto done) { async_->status(std::move(done), within); });
}

Answers<protocol::SystemStatus> Client::control(protocol::ControlAction action, protocol::ControlScope scope,
                                                const std::string& name) {
  return answer_of<Answers<protocol::SystemStatus>>(
      *async_, [&](auto done) { async_->control(action, scope, name, std::move(done)); });
}

Answers<protocol::JobList> Client::list(const protocol::JobFilter& filter, uint32_t limit, const ListPosition& after,
                                        ListOrder order) {
  return answer_of<Answers<protocol::JobList>>(
      *async_, [&](auto done) { async_->list(filter, limit, after, std::move(done), order); });
}

Result<int64_t> Client::purge(const protocol::JobFilter& filter) {
  return answer_of<Result<int64_t>>(*async_, [&](auto done) { async_->purge(filter, std::move(done)); });
}

Answers<protocol::BackedUp> Client::backup(std::chrono::milliseconds wait) {
  return answer_of<Answers<protocol::BackedUp>>(*async_, [&](auto done) { async_->backup(wait, std::move(done)); });
}

}  // namespace optserve::client
