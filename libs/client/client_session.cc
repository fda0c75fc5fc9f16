#include "client/client_session.h"

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"
#include "protocol/validate.h"

namespace optserve::client {
namespace {

using protocol::Message;

constexpr Duration kPingInterval = milliseconds(1'000);
constexpr Duration kTick = milliseconds(100);
// While there is no connection it is tried for this often: often at first, since most starts succeed at once.
constexpr Duration kProbeFirst = milliseconds(10), kProbeMax = milliseconds(500);
// A gap is answered with one Attach, not with one for each event that follows it.
constexpr Duration kAttachPause = milliseconds(200);
constexpr size_t kEarlyJobsMax = 4'096;
// Leaves room for the envelope.
constexpr size_t kSubmitBytesMax = limits::kClientMessageBytesMax - 4'096;

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

// What the scheduler would refuse, found before it is sent: a frame that cannot be decoded has no request number that
// its refusal could name.
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
  Submitted done;
  std::vector<FollowId> follows;
  size_t open_messages = 0;
  size_t failed_messages = 0;
  size_t messages = 0;
  Refusal last_failure;

  bool is_streamed() const { return stream.on_text || stream.on_finished || stream.on_lost; }
  void finish_if_complete() {
    if (open_messages > 0) return;
    if (messages > 0 && failed_messages == messages) {
      done(last_failure, {});
    } else {
      done(std::move(outcomes), std::move(follows));
    }
  }
};

ClientSession::ClientSession(const SessionOptions& options) : options_(options), random_(options.seed) {}

// --- requests

void ClientSession::call(Message request, Instant deadline, const Turn& turn, Answer done) {
  const uint64_t number = ++last_request_;
  set_request(request, number);
  Call& call = calls_[number];
  call = {std::move(request), deadline, std::move(done), turn.now, options_.retry_first, {}};
  send_call(call, turn);
}

void ClientSession::send_call(Call& call, const Turn& turn) {
  turn.out.send(scheduler(), call.message);
  call.next_send = turn.now + options_.answer_within + jitter(call.wait);
  call.wait = std::min(call.wait * 2, options_.retry_max);
}

void ClientSession::answer_call(uint64_t request, Result<Message> answer, const Turn& turn) {
  const auto found = calls_.find(request);
  if (found == calls_.end()) return;  // a second answer to a repeated request
  const Answer done = std::move(found->second.done);
  calls_.erase(found);
  done(std::move(answer), turn);
}

// The scheduler was busy: the same message once more, if there is time.
bool ClientSession::put_off(uint64_t request, const Turn& turn) {
  const auto found = calls_.find(request);
  if (found == calls_.end()) return false;
  Call& call = found->second;
  const Instant next = turn.now + call.wait / 2 + jitter(call.wait / 2);
  if (next >= call.deadline) return false;
  call.next_send = next;
  return true;
}

// The jobs that were accepted or refused for good keep their first outcome: to the scheduler they are duplicates when
// the message is repeated for those that it was too busy for.
void ClientSession::on_submit_answer(protocol::SubmitReply reply, const Turn& turn) {
  const auto found = calls_.find(reply.request);
  if (found == calls_.end()) return;
  std::vector<protocol::SubmitOutcome>& decided = found->second.decided;
  if (decided.size() == reply.outcomes.size()) {
    for (size_t i = 0; i < decided.size(); ++i) {
      if (decided[i].error != ErrorCode::kBusy) reply.outcomes[i] = std::move(decided[i]);
    }
  }
  const bool is_busy = std::any_of(reply.outcomes.begin(), reply.outcomes.end(),
                                   [](const auto& outcome) { return outcome.error == ErrorCode::kBusy; });
  if (is_busy && put_off(reply.request, turn)) {
    decided = std::move(reply.outcomes);
    return;
  }
  answer_call(reply.request, Message(std::move(reply)), turn);
}

void ClientSession::expire_calls(const Turn& turn) {
  std::vector<uint64_t> expired;
  for (auto& [request, call] : calls_) {
    if (turn.now >= call.deadline) {
      expired.push_back(request);
    } else if (turn.now >= call.next_send) {
      send_call(call, turn);
    }
  }
  for (const uint64_t request : expired) {
    if (auto& decided = calls_.at(request).decided; !decided.empty()) {
      answer_call(request, Message(protocol::SubmitReply{request, std::move(decided)}), turn);
      continue;
    }
    answer_call(request, refuse(ErrorCode::kUnavailable, "no answer from the scheduler at " + options_.endpoint), turn);
  }
}

// --- submit

void ClientSession::submit(std::vector<protocol::JobSpec> jobs, JobStream stream, Instant deadline, const Turn& turn,
                           Submitted done) {
  auto batch = std::make_shared<Batch>();
  batch->jobs = std::move(jobs);
  batch->outcomes.resize(batch->jobs.size());
  batch->stream = std::move(stream);
  batch->done = std::move(done);
  batch->open_messages = 1;  // this function's own hold
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
      send_batch(batch, std::exchange(indices, {}), deadline, turn);
      bytes = 0;
    }
    indices.push_back(i);
    bytes += size;
  }
  if (!indices.empty()) send_batch(batch, std::move(indices), deadline, turn);
  --batch->open_messages;
  batch->finish_if_complete();
}

void ClientSession::send_batch(const std::shared_ptr<Batch>& batch, std::vector<size_t> indices, Instant deadline,
                               const Turn& turn) {
  protocol::Submit submit;
  submit.stream = batch->is_streamed();
  for (const size_t i : indices) submit.jobs.push_back(std::move(batch->jobs[i]));
  ++batch->messages;
  ++batch->open_messages;
  open_stream_submits_ += submit.stream;
  call(std::move(submit), deadline, turn,
       [this, batch, indices = std::move(indices)](Result<Message> answer, const Turn& then) {
         on_submit_reply(*batch, indices, std::move(answer), then);
       });
}

void ClientSession::on_submit_reply(Batch& batch, const std::vector<size_t>& indices, Result<Message> answer,
                                    const Turn& turn) {
  const auto* reply = answer.ok() ? std::get_if<protocol::SubmitReply>(&answer.value()) : nullptr;
  if (reply != nullptr && reply->outcomes.size() == indices.size()) {
    for (size_t i = 0; i < indices.size(); ++i) {
      const protocol::SubmitOutcome& outcome = batch.outcomes[indices[i]] = reply->outcomes[i];
      if (!outcome.job || !batch.is_streamed()) continue;
      batch.follows.push_back(follow(*outcome.job, 0, batch.stream, turn));
      // The scheduler streams a new job without being asked.
      const bool is_streaming = !outcome.duplicate && !early_.contains(*outcome.job);
      if (is_streaming) jobs_[*outcome.job].next_attach = turn.now + options_.attach_again;
    }
  } else {
    batch.last_failure = answer.ok() ? refuse(ErrorCode::kDataCorrupt, "submit: the answer does not match the request")
                                     : answer.refusal();
    ++batch.failed_messages;
    for (const size_t i : indices) batch.outcomes[i] = refused_outcome(batch.last_failure);
  }
  if (batch.is_streamed() && --open_stream_submits_ == 0) early_.clear();
  --batch.open_messages;
  batch.finish_if_complete();
}

// --- streams

ClientSession::FollowId ClientSession::follow(const JobId& job, uint64_t text_offset, JobStream stream,
                                              const Turn& turn) {
  FollowedJob& followed = jobs_[job];
  followed.follows.push_back({++last_follow_, std::move(stream), text_offset});
  followed.next_attach = turn.now;  // at the next tick, together with others
  return last_follow_;
}

void ClientSession::unfollow(FollowId id) {
  for (auto job = jobs_.begin(); job != jobs_.end(); ++job) {
    if (std::erase_if(job->second.follows, [&](const Follow& f) { return f.id == id; }) == 0) continue;
    if (job->second.follows.empty()) {
      attach_requests_.erase(job->second.attach_request);
      jobs_.erase(job);
    }
    return;
  }
}

void ClientSession::attach(const JobId& id, FollowedJob& job, const Turn& turn) {
  attach_requests_.erase(job.attach_request);
  job.attach_request = ++last_request_;
  attach_requests_[job.attach_request] = id;
  uint64_t have = job.follows.front().have;
  for (const Follow& f : job.follows) have = std::min(have, f.have);
  turn.out.send(scheduler(), protocol::Attach{job.attach_request, id, have});
  job.last_attach = turn.now;
  job.next_attach = turn.now + options_.attach_again + jitter(options_.attach_again / 4);
}

void ClientSession::on_unknown_job(const JobId& id) {
  if (open_stream_submits_ > 0 && early_.size() < kEarlyJobsMax) early_.insert(id);
}

void ClientSession::on_event(const protocol::JobEvent& event, const Turn& turn) {
  const auto found = jobs_.find(event.job);
  if (found == jobs_.end()) {
    on_unknown_job(event.job);
    return;
  }
  FollowedJob& job = found->second;
  bool gap = false;
  for (Follow& f : job.follows) {
    const uint64_t end = event.text_offset + event.text.size();
    if (event.text_offset > f.have) {
      gap = true;
      continue;
    }
    if (end <= f.have && !event.text.empty()) continue;  // had it already
    protocol::JobEvent piece = event;
    piece.text.erase(0, static_cast<size_t>(f.have - event.text_offset));
    piece.text_offset = f.have;
    f.have += piece.text.size();
    if (f.stream.on_text) f.stream.on_text(piece.text, piece);
  }
  if (!gap) {
    job.next_attach = turn.now + options_.attach_again;
  } else if (turn.now - job.last_attach >= kAttachPause) {
    attach(event.job, job, turn);
  } else {
    job.next_attach = std::min(job.next_attach, job.last_attach + kAttachPause);
  }
}

void ClientSession::on_finished(const protocol::JobResult& result) {
  const auto found = jobs_.find(result.job);
  if (found == jobs_.end()) {
    on_unknown_job(result.job);
    return;
  }
  if (!protocol::is_terminal(result.state)) return;
  FollowedJob job = std::move(found->second);
  attach_requests_.erase(job.attach_request);
  jobs_.erase(found);
  for (Follow& f : job.follows) {
    if (result.text.size() > f.have && f.stream.on_text) {
      protocol::JobEvent rest;
      rest.job = result.job;
      rest.text_offset = f.have;
      rest.text = result.text.substr(static_cast<size_t>(f.have));
      rest.tokens = static_cast<uint32_t>(result.ids.size());
      rest.progress_done = result.progress_done;
      rest.progress_total = result.progress_total;
      f.stream.on_text(rest.text, rest);
    }
    if (f.stream.on_finished) f.stream.on_finished(result);
  }
}

void ClientSession::on_refused(const protocol::Refused& refused, const Turn& turn) {
  const Refusal why{refused.code, refused.message};
  const auto attached = attach_requests_.find(refused.request);
  if (attached == attach_requests_.end()) {
    if (refused.code == ErrorCode::kBusy && put_off(refused.request, turn)) return;
    if (!calls_.contains(refused.request)) log_warn("scheduler_refused", {{"message", refused.message}});
    answer_call(refused.request, why, turn);
    return;
  }
  if (refused.code != ErrorCode::kNotFound) return;  // tried again when the stream has been silent for long enough
  const auto found = jobs_.find(attached->second);
  attach_requests_.erase(attached);
  if (found == jobs_.end()) return;
  const FollowedJob job = std::move(found->second);
  jobs_.erase(found);
  for (const Follow& f : job.follows) {
    if (f.stream.on_lost) f.stream.on_lost(why);
  }
}

// --- connection

void ClientSession::on_message(const Peer&, Message message, Instant now, Outbox& out) {
  const Turn turn{now, out};
  heard(turn);
  if (const auto* events = std::get_if<protocol::JobEvents>(&message)) {
    for (const auto& event : events->events) on_event(event, turn);
  } else if (const auto* finished = std::get_if<protocol::JobFinished>(&message)) {
    on_finished(finished->result);
  } else if (const auto* refused = std::get_if<protocol::Refused>(&message)) {
    on_refused(*refused, turn);
  } else if (const auto* pong = std::get_if<protocol::Pong>(&message)) {
    const bool is_new = term_ != 0 && pong->term != term_;
    term_ = pong->term;
    if (is_new) resync(turn);
  } else if (auto* reply = std::get_if<protocol::SubmitReply>(&message)) {
    on_submit_answer(std::move(*reply), turn);
  } else if (const uint64_t request = request_of(message); request != 0) {
    answer_call(request, std::move(message), turn);
  }
}

void ClientSession::heard(const Turn& turn) {
  last_heard_ = turn.now;
  if (!lost_) return;
  lost_ = false;
  resync(turn);
}

// What was sent to the scheduler before may be lost, and it may not know where to send what we wait for.
void ClientSession::resync(const Turn& turn) {
  // The first connection is ours alone; after a loss every client comes back at the same time.
  const auto soon = [&] { return term_ == 0 ? turn.now : turn.now + jitter(options_.retry_first); };
  for (auto& [request, call] : calls_) {
    call.next_send = soon();
    call.wait = options_.retry_first;
  }
  for (auto& [id, job] : jobs_) job.next_attach = soon();
  expire_calls(turn);
}

void ClientSession::on_undeliverable(const Peer&, Message message, bool, Instant now, Outbox&) {
  if (!lost_) {
    lost_ = true;
    lost_since_ = now;
  }
  const auto call = calls_.find(request_of(message));
  if (call != calls_.end()) call->second.next_send = now + jitter(call->second.wait);
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
    next_reconnect_ = now + options_.lost_after + jitter(options_.lost_after);
  }
  if (now >= next_ping_) {
    out.send(scheduler(), protocol::Ping{++ping_number_});
    next_ping_ = now + ping_interval(now);
  }
  expire_calls(turn);
  for (auto& [id, job] : jobs_) {
    if (!lost_ && now >= job.next_attach) attach(id, job, turn);
  }
}

Duration ClientSession::ping_interval(Instant now) const {
  if (!lost_) return kPingInterval;
  return std::clamp<Duration>((now - lost_since_) / 8, kProbeFirst, kProbeMax);
}

Duration ClientSession::tick_interval() const { return std::min(kTick, ping_interval(last_tick_)); }

void ClientSession::close(const Refusal& why, const Turn& turn) {
  while (!calls_.empty()) answer_call(calls_.begin()->first, why, turn);
  attach_requests_.clear();
  for (const auto& [id, job] : std::exchange(jobs_, {})) {
    for (const Follow& f : job.follows) {
      if (f.stream.on_lost) f.stream.on_lost(why);
    }
  }
}

Duration ClientSession::jitter(Duration up_to) {
  const int64_t range = std::max<int64_t>(up_to.count(), 1);
  return Duration(static_cast<int64_t>(random_() % static_cast<uint64_t>(range)));
}

}  // namespace optserve::client
