#include "client/client_session.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "protocol/codec.h"
#include "protocol/validate.h"

namespace optserve::client {
namespace {

using protocol::Message;

constexpr Duration kPingInterval = milliseconds(1'000);
constexpr Duration kTick = milliseconds(100);
// The interval of pings while there is no connection: short at first, since most connections succeed at once.
constexpr Duration kProbeFirst = milliseconds(10), kProbeMax = milliseconds(500);
// Leaves room for the envelope.
constexpr size_t kSubmitBytesMax = limits::kClientMessageBytesMax - 4'096;
constexpr int64_t kRetryAfterMsMax = 3'600'000;

void set_request(Message& message, uint64_t request) {
  std::visit(
      [&](auto& body) {
        if constexpr (requires { body.request; }) body.request = request;
      },
      message);
}

uint64_t request_of(const Message& message) {
  return std::visit(
      [](const auto& body) -> uint64_t {
        if constexpr (requires { body.request; }) return body.request;
        return 0;
      },
      message);
}

// False for requests that would be executed twice: these are sent again only if they were never handed over.
bool is_repeatable(const Message& message) { return !std::holds_alternative<protocol::Backup>(message); }

// Asking again later may help.
bool is_put_off(ErrorCode code) { return code == ErrorCode::kBusy || code == ErrorCode::kStorageFull; }

// Asking another scheduler may help.
bool is_movable(ErrorCode code) { return is_put_off(code) || code == ErrorCode::kUnavailable; }

// Checks a job before it is sent, since the scheduler's refusal of a frame that it cannot decode could not name the
// request.
Status check_job(const protocol::JobSpec& job) {
  if (Status status = protocol::validate(job); !status.ok()) return status;
  const auto decoded = protocol::decode_job_spec(protocol::encode_job_spec(job));
  if (!decoded.ok()) return decoded.refusal();
  return ok_status();
}

protocol::SubmitOutcome refused_outcome(const Refusal& why) {
  protocol::SubmitOutcome outcome;
  outcome.error = why.code;
  outcome.message = why.message;
  return outcome;
}

}  // namespace

// One submit(): its jobs may travel in several messages.
struct ClientSession::Batch {
  std::vector<protocol::JobSpec> jobs;
  std::vector<protocol::SubmitOutcome> outcomes;
  JobStream stream;
  Instant deadline;
  Submitted done;
  MayGiveUp may_give_up;
  std::vector<FollowId> follows{};
  std::vector<size_t> returned{};
  size_t open_messages = 1;  // one for submit() itself
  size_t failed_messages = 0;
  size_t messages = 0;
  Refusal last_failure{};

  void release(const Turn& turn) {
    if (--open_messages > 0) return;
    if (messages > 0 && failed_messages == messages) {
      done({last_failure, {}, std::move(returned)}, turn);
    } else {
      done({std::move(outcomes), std::move(follows), std::move(returned)}, turn);
    }
  }
};

ClientSession::ClientSession(const SessionOptions& options)
    : options_(options), random_(options.seed), streams_(options, [this] { return ++last_request_; }) {}

// --- requests

uint64_t ClientSession::call(Message request, Instant deadline, const Turn& turn, Answer done, MayGiveUp may_give_up) {
  const Done any_fate = [done = std::move(done)](Result<Message> answer, Fate, const Turn& then) {
    done(std::move(answer), then);
  };
  start_call({std::move(request), deadline, any_fate, std::move(may_give_up), turn.now, options_.retry_first}, turn);
  return last_request_;
}

void ClientSession::start_call(Call call, const Turn& turn) {
  const uint64_t number = ++last_request_;
  set_request(call.message, number);
  send_due_call(calls_[number] = std::move(call), turn);
}

void ClientSession::send_due_call(Call& call, const Turn& turn) {
  if (lost_ || turn.now < call.next_send) return;
  if (call.handed_over == 0) {
    budget_.add_request(turn.now);
  } else if (!is_repeatable(call.message)) {
    return;
  } else if (!call.after_loss && !budget_.take(turn.now)) {
    call.next_send = turn.now + jitter(random_, call.wait);
    return;
  }
  call.after_loss = false;
  ++call.handed_over;
  call.next_send = turn.now + options_.answer_within + jitter(random_, call.wait);
  call.wait = std::min(call.wait * 2, options_.retry_max);
  turn.out.send(scheduler(), call.message);
}

void ClientSession::answer_call(uint64_t request, Result<Message> answer, Fate fate, const Turn& turn) {
  const auto found = calls_.find(request);
  if (found == calls_.end()) return;  // a second answer to a repeated request
  const Done done = std::move(found->second.done);
  calls_.erase(found);
  done(std::move(answer), fate, turn);
}

// A request that was handed over twice may have been refused once and accepted once.
bool ClientSession::can_return(const Call& call) const {
  return std::holds_alternative<protocol::Submit>(call.message) && call.handed_over <= 1 && call.may_give_up &&
         call.may_give_up();
}

// A Submit that may have arrived is not given up, since it may have been accepted.
bool ClientSession::gives_up(const Call& call, Instant now) const {
  if (!is_down(now) || !call.may_give_up) return false;
  if (call.handed_over > 0 && std::holds_alternative<protocol::Submit>(call.message)) return false;
  return call.may_give_up();
}

// Schedules the same message once more, if there is time.
bool ClientSession::put_off(Call& call, int64_t retry_after_ms, Instant now) {
  if (!options_.waits_while_busy) return false;
  Duration wait = call.wait / 2 + jitter(random_, call.wait / 2);
  if (retry_after_ms > 0) {
    const Duration told = milliseconds(std::min(retry_after_ms, kRetryAfterMsMax));
    wait = told + jitter(random_, std::max(told / 2, options_.retry_first));
  }
  if (now + wait >= call.deadline) return false;
  call.next_send = now + wait;
  return true;
}

// The jobs that were accepted or refused for good keep their first outcome: when the message is repeated for those that
// were put off, the scheduler sees these as duplicates.
void ClientSession::on_submit_answer(protocol::SubmitReply reply, const Turn& turn) {
  const auto found = calls_.find(reply.request);
  if (found == calls_.end()) return;
  Call& call = found->second;
  if (call.decided.size() == reply.outcomes.size()) {
    for (size_t i = 0; i < call.decided.size(); ++i) {
      if (const auto error = call.decided[i].error; !error || !is_put_off(*error)) {
        reply.outcomes[i] = std::move(call.decided[i]);
      }
    }
  }
  bool some_put_off = false, some_movable = false;
  int64_t retry_after_ms = 0;
  for (const protocol::SubmitOutcome& outcome : reply.outcomes) {
    if (!outcome.error) continue;
    some_movable |= is_movable(*outcome.error);
    some_put_off |= is_put_off(*outcome.error);
    if (is_put_off(*outcome.error)) retry_after_ms = std::max(retry_after_ms, outcome.retry_after_ms);
  }
  const Fate fate = some_movable && can_return(call) ? Fate::kReturned : Fate::kAnswered;
  if (fate == Fate::kAnswered && some_put_off && put_off(call, retry_after_ms, turn.now)) {
    call.decided = std::move(reply.outcomes);
    return;
  }
  answer_call(reply.request, Message(std::move(reply)), fate, turn);
}

void ClientSession::on_refused(const protocol::Refused& refused, const Turn& turn) {
  if (streams_.on_refused(refused, turn)) return;
  const auto found = calls_.find(refused.request);
  if (found == calls_.end()) {
    // A scheduler that does not know a message refuses it each time that it is sent.
    if (std::exchange(last_unasked_refusal_, refused.message) != refused.message) {
      log_warn("scheduler_refused", {{"message", refused.message}});
    }
    return;
  }
  Call& call = found->second;
  const Fate fate = is_movable(refused.code) && can_return(call) ? Fate::kReturned : Fate::kAnswered;
  if (fate == Fate::kAnswered && is_put_off(refused.code) && put_off(call, refused.retry_after_ms, turn.now)) return;
  if (!call.decided.empty()) return expire_call(refused.request, turn);
  answer_call(refused.request, Refusal{refused.code, refused.message}, fate, turn);
}

// Ends a call without a final answer; outcomes decided before still count.
void ClientSession::expire_call(uint64_t request, const Turn& turn) {
  if (auto& decided = calls_.at(request).decided; !decided.empty()) {
    answer_call(request, Message(protocol::SubmitReply{request, std::move(decided)}), Fate::kAnswered, turn);
    return;
  }
  answer_call(request, refuse(ErrorCode::kUnavailable, "no answer from the scheduler at " + options_.endpoint),
              Fate::kAnswered, turn);
}

void ClientSession::turn_calls(const Turn& turn) {
  std::vector<uint64_t> expired, given_up;
  for (auto& [request, call] : calls_) {
    if (turn.now >= call.deadline) {
      expired.push_back(request);
    } else if (gives_up(call, turn.now)) {
      given_up.push_back(request);
    } else {
      send_due_call(call, turn);
    }
  }
  for (const uint64_t request : expired) {
    if (calls_.contains(request)) expire_call(request, turn);
  }
  const Refusal unreachable =
      refuse(ErrorCode::kUnavailable, "the scheduler at " + options_.endpoint + " cannot be reached");
  for (const uint64_t request : given_up) answer_call(request, unreachable, Fate::kReturned, turn);
}

// --- submit

void ClientSession::submit(std::vector<protocol::JobSpec> jobs, JobStream stream, Instant deadline, const Turn& turn,
                           Submitted done, MayGiveUp may_give_up) {
  const std::vector<protocol::SubmitOutcome> undecided(jobs.size());
  const auto batch = std::make_shared<Batch>(
      Batch{std::move(jobs), undecided, std::move(stream), deadline, std::move(done), std::move(may_give_up)});
  std::vector<size_t> indices;
  size_t bytes = 0;
  for (size_t i = 0; i < batch->jobs.size(); ++i) {
    protocol::JobSpec& job = batch->jobs[i];
    if (job.key.empty()) job.key = Id128::random().hex();
    if (Status status = check_job(job); !status.ok()) {
      batch->outcomes[i] = refused_outcome(status.refusal());
      continue;
    }
    const size_t size = protocol::encode_job_spec(job).size();
    if (indices.size() == limits::kJobsPerSubmitMax || bytes + size > kSubmitBytesMax) {
      send_batch(batch, std::exchange(indices, {}), turn);
      bytes = 0;
    }
    indices.push_back(i);
    bytes += size;
  }
  if (!indices.empty()) send_batch(batch, std::move(indices), turn);
  batch->release(turn);
}

void ClientSession::send_batch(const std::shared_ptr<Batch>& batch, std::vector<size_t> indices, const Turn& turn) {
  protocol::Submit submit;
  submit.stream = batch->stream.is_wanted();
  for (const size_t i : indices) submit.jobs.push_back(std::move(batch->jobs[i]));
  ++batch->messages;
  ++batch->open_messages;
  if (submit.stream) streams_.begin_submit();
  const Done done = [this, batch, indices = std::move(indices)](Result<Message> answer, Fate fate, const Turn& then) {
    on_submit_reply(*batch, indices, std::move(answer), fate, then);
  };
  start_call({std::move(submit), batch->deadline, done, batch->may_give_up, turn.now, options_.retry_first}, turn);
}

void ClientSession::on_submit_reply(Batch& batch, const std::vector<size_t>& indices, Result<Message> answer, Fate fate,
                                    const Turn& turn) {
  const auto* reply = answer.ok() ? std::get_if<protocol::SubmitReply>(&answer.value()) : nullptr;
  const bool is_streamed = batch.stream.is_wanted();
  if (reply != nullptr && reply->outcomes.size() == indices.size()) {
    for (size_t i = 0; i < indices.size(); ++i) {
      const protocol::SubmitOutcome& outcome = batch.outcomes[indices[i]] = reply->outcomes[i];
      if (fate == Fate::kReturned && outcome.error && is_movable(*outcome.error)) batch.returned.push_back(indices[i]);
      if (!outcome.job || !is_streamed) continue;
      if (outcome.unfollowed) {
        JobStreams::refuse_follow(*outcome.job, batch.stream);
        continue;
      }
      batch.follows.push_back(outcome.duplicate ? streams_.follow(*outcome.job, 0, batch.stream, turn)
                                                : streams_.follow_new(*outcome.job, batch.stream, turn));
    }
  } else {
    batch.last_failure = answer.ok() ? refuse(ErrorCode::kDataCorrupt, "submit: the answer does not match the request")
                                     : answer.refusal();
    ++batch.failed_messages;
    for (const size_t i : indices) batch.outcomes[i] = refused_outcome(batch.last_failure);
    if (fate == Fate::kReturned) batch.returned.insert(batch.returned.end(), indices.begin(), indices.end());
  }
  if (is_streamed) streams_.end_submit();
  batch.release(turn);
}

ClientSession::FollowId ClientSession::follow(const JobId& job, uint64_t text_offset, JobStream stream,
                                              const Turn& turn) {
  return streams_.follow(job, text_offset, std::move(stream), turn);
}

// --- connection

void ClientSession::on_message(const Peer&, Message message, Instant now, Outbox& out) {
  const Turn turn{now, out};
  heard(turn);
  if (const auto* events = std::get_if<protocol::JobEvents>(&message)) {
    for (const auto& event : events->events) streams_.on_event(event, turn);
  } else if (const auto* finished = std::get_if<protocol::JobFinished>(&message)) {
    streams_.on_finished(finished->result);
  } else if (const auto* refused = std::get_if<protocol::Refused>(&message)) {
    on_refused(*refused, turn);
  } else if (const auto* pong = std::get_if<protocol::Pong>(&message)) {
    const bool is_new = term_ != 0 && pong->term != term_;
    term_ = pong->term;
    if (is_new) resync(turn);
  } else if (auto* reply = std::get_if<protocol::SubmitReply>(&message)) {
    on_submit_answer(std::move(*reply), turn);
  } else if (const uint64_t request = request_of(message); request != 0) {
    answer_call(request, std::move(message), Fate::kAnswered, turn);
  }
  if (streams_.consumed() - credited_ >= options_.window_bytes / 2) send_credit(out);
}

void ClientSession::heard(const Turn& turn) {
  last_heard_ = turn.now;
  if (!lost_) return;
  lost_ = false;
  resync(turn);
}

// What was sent to the scheduler before may be lost, and it may not know where to send what this client waits for.
void ClientSession::resync(const Turn& turn) {
  // After a loss all clients come back at the same time, so they spread out; a first connection need not.
  const Duration spread = term_ == 0 ? Duration{} : options_.retry_first;
  send_credit(turn.out);
  for (auto& [request, call] : calls_) {
    call.next_send = turn.now + jitter(random_, spread);
    call.wait = options_.retry_first;
    call.after_loss = true;
  }
  streams_.attach_all(spread, turn.now);
  turn_calls(turn);
}

void ClientSession::send_credit(Outbox& out) {
  credited_ = streams_.consumed();
  out.send(scheduler(), protocol::Credit{credited_, options_.window_bytes});
}

void ClientSession::on_undeliverable(const Peer&, Message message, bool, Instant now, Outbox&) {
  if (!lost_) {
    lost_ = true;
    lost_since_ = now;
  }
  const auto call = calls_.find(request_of(message));
  if (call != calls_.end()) --call->second.handed_over;
}

void ClientSession::on_not_let_in(transport::PortId, const std::string& why, Instant now, Outbox& out) {
  if (!lost_) lost_since_ = now;
  lost_ = true;
  close(refuse(ErrorCode::kUnavailable, "the scheduler at " + options_.endpoint + " does not let us in: " + why),
        {now, out});
}

void ClientSession::on_connected(transport::PortId, Instant now, Outbox&) {
  if (lost_) return;
  lost_ = true;
  lost_since_ = next_ping_ = now;
}

void ClientSession::on_tick(Instant now, Outbox& out) {
  const Turn turn{now, out};
  last_tick_ = now;
  if (!started_) {
    started_ = true;
    lost_since_ = last_heard_ = now;
    next_reconnect_ = now + options_.lost_after;
  }
  if (!lost_ && now - last_heard_ >= options_.lost_after) {
    lost_ = true;
    lost_since_ = now;
    log_warn("scheduler_silent", {{"endpoint", options_.endpoint}});
  }
  if (lost_ && now - last_heard_ >= options_.lost_after && now >= next_reconnect_) {
    out.reconnect(options_.port);
    next_reconnect_ = now + options_.lost_after + jitter(random_, options_.lost_after);
  }
  if (now >= next_ping_) {
    out.send(scheduler(), protocol::Ping{++ping_number_});
    send_credit(out);
    next_ping_ = now + ping_interval(now);
  }
  turn_calls(turn);
  if (!lost_) streams_.attach_due(turn);
}

Duration ClientSession::ping_interval(Instant now) const {
  if (!lost_) return kPingInterval;
  return std::clamp<Duration>((now - lost_since_) / 8, kProbeFirst, kProbeMax);
}

Duration ClientSession::tick_interval() const { return std::min(kTick, ping_interval(last_tick_)); }

void ClientSession::close(const Refusal& why, const Turn& turn) {
  while (!calls_.empty()) answer_call(calls_.begin()->first, why, Fate::kAnswered, turn);
  streams_.close(why);
}

}  // namespace optserve::client
