#include "client/job_streams.h"

#include <algorithm>
#include <utility>

namespace optserve::client {
namespace {

// A gap causes one Attach, not one for each event that follows it.
constexpr Duration kAttachPause = milliseconds(200);
constexpr size_t kEarlyJobsMax = 4'096;

}  // namespace

JobStreams::JobStreams(const SessionOptions& options, std::function<uint64_t()> next_request)
    : options_(options), next_request_(std::move(next_request)), random_(options.seed) {}

JobStreams::FollowId JobStreams::follow(const JobId& job, uint64_t text_offset, JobStream stream, const Turn& turn) {
  FollowedJob& followed = jobs_[job];
  const uint64_t digest = text_offset == 0 ? protocol::kDigestOfNothing : 0;
  followed.follows.push_back({++last_follow_, std::move(stream), text_offset, digest, std::nullopt});
  followed.next_attach = turn.now;  // at the next tick, together with others
  return last_follow_;
}

JobStreams::FollowId JobStreams::follow_new(const JobId& job, JobStream stream, const Turn& turn) {
  const FollowId id = follow(job, 0, std::move(stream), turn);
  jobs_[job].is_heard = true;  // the scheduler has said that it streams it
  if (!early_.contains(job)) jobs_[job].next_attach = turn.now + options_.attach_again;
  return id;
}

void JobStreams::refuse_follow(const JobId& job, const JobStream& stream) {
  if (!stream.on_lost) return;
  stream.on_lost(job, refuse(ErrorCode::kBusy, "job " + job.hex() + " has its maximum of followers"));
}

void JobStreams::unfollow(FollowId id) {
  for (auto job = jobs_.begin(); job != jobs_.end(); ++job) {
    if (std::erase_if(job->second.follows, [&](const Follow& f) { return f.id == id; }) == 0) continue;
    if (job->second.follows.empty()) {
      attach_requests_.erase(job->second.attach_request);
      jobs_.erase(job);
    }
    return;
  }
}

void JobStreams::end_submit() {
  if (--open_submits_ == 0) early_.clear();
}

void JobStreams::attach(const JobId& id, FollowedJob& job, const Turn& turn) {
  attach_requests_.erase(job.attach_request);
  job.attach_request = next_request_();
  attach_requests_[job.attach_request] = id;
  const Follow& last = *std::ranges::min_element(job.follows, {}, &Follow::have);
  turn.out.send({options_.port, {}}, protocol::Attach{job.attach_request, id, last.have, last.digest});
  job.last_attach = turn.now;
  job.next_attach = turn.now + options_.attach_again + jitter(random_, options_.attach_again / 4);
}

void JobStreams::attach_due(const Turn& turn) {
  for (auto& [id, job] : jobs_) {
    if (turn.now >= job.next_attach) attach(id, job, turn);
  }
}

void JobStreams::attach_all(Duration spread, Instant now) {
  for (auto& [id, job] : jobs_) job.next_attach = now + jitter(random_, spread);
}

void JobStreams::note_unknown(const JobId& id) {
  if (open_submits_ > 0 && early_.size() < kEarlyJobsMax) early_.insert(id);
}

void JobStreams::on_event(const protocol::JobEvent& event, const Turn& turn) {
  deliver_to_all(event, turn);
  consumed_ += protocol::stream_cost(event);
}

void JobStreams::on_finished(const protocol::JobResult& result) {
  deliver_end(result);
  consumed_ += protocol::stream_cost(result);
}

void JobStreams::restart(Follow& follow, const JobId& job) {
  if (follow.have == 0) return;
  follow.have = 0;
  follow.digest = protocol::kDigestOfNothing;
  if (follow.stream.on_restarted) follow.stream.on_restarted(job);
}

bool JobStreams::deliver(Follow& follow, const protocol::JobEvent& event) {
  if (event.restarted) restart(follow, event.job);
  if (event.text_offset > follow.have) return false;
  const uint64_t end = event.text_offset + event.text.size();
  if (end <= follow.have && !event.text.empty()) return true;  // delivered before
  protocol::JobEvent piece = event;
  piece.text.erase(0, static_cast<size_t>(follow.have - event.text_offset));
  piece.text_offset = follow.have;
  follow.have += piece.text.size();
  if (follow.digest != 0) follow.digest = protocol::text_digest(piece.text, follow.digest);
  const Progress progress{event.state,  event.position,      event.tokens,
                          event.eta_ms, event.progress_done, event.progress_total};
  if (std::exchange(follow.progress, progress) != progress && follow.stream.on_progress) {
    follow.stream.on_progress(piece);
  }
  if (!piece.text.empty() && follow.stream.on_text) follow.stream.on_text(piece.text, piece);
  return true;
}

void JobStreams::deliver_to_all(const protocol::JobEvent& event, const Turn& turn) {
  const auto found = jobs_.find(event.job);
  if (found == jobs_.end()) return note_unknown(event.job);
  FollowedJob& job = found->second;
  job.is_heard = true;
  bool gap = false;
  for (Follow& f : job.follows) gap |= !deliver(f, event);
  if (!gap) {
    job.next_attach = turn.now + options_.attach_again;
  } else if (turn.now - job.last_attach >= kAttachPause) {
    attach(event.job, job, turn);
  } else {
    job.next_attach = std::min(job.next_attach, job.last_attach + kAttachPause);
  }
}

void JobStreams::deliver_rest(Follow& follow, const protocol::JobResult& result) {
  // A job that ended early, soon after a restart of the scheduler, may have less text than was delivered before.
  const bool is_whole = result.text.size() >= follow.have || result.state == protocol::JobState::kSucceeded;
  const std::string_view same = std::string_view(result.text).substr(0, static_cast<size_t>(follow.have));
  if (is_whole && follow.digest != 0 && protocol::text_digest(same) != follow.digest) restart(follow, result.job);
  if (result.text.size() <= follow.have || !follow.stream.on_text) return;
  protocol::JobEvent rest;
  rest.job = result.job;
  rest.text_offset = follow.have;
  rest.text = result.text.substr(static_cast<size_t>(follow.have));
  rest.tokens = static_cast<uint32_t>(result.ids.size());
  rest.progress_done = result.progress_done;
  rest.progress_total = result.progress_total;
  rest.state = result.state;
  follow.stream.on_text(rest.text, rest);
}

void JobStreams::deliver_end(const protocol::JobResult& result) {
  const auto found = jobs_.find(result.job);
  if (found == jobs_.end()) return note_unknown(result.job);
  if (!protocol::is_terminal(result.state)) return;
  FollowedJob job = std::move(found->second);
  attach_requests_.erase(job.attach_request);
  jobs_.erase(found);
  for (Follow& f : job.follows) {
    deliver_rest(f, result);
    if (f.stream.on_finished) f.stream.on_finished(result);
  }
}

bool JobStreams::on_refused(const protocol::Refused& refused, const Turn& turn) {
  const auto attached = attach_requests_.find(refused.request);
  if (attached == attach_requests_.end()) return false;
  const auto found = jobs_.find(attached->second);
  if (refused.retry_after_ms > 0 && found != jobs_.end()) {  // too many messages, and not too many followers
    const Duration wait = milliseconds(refused.retry_after_ms);
    found->second.next_attach = turn.now + wait + jitter(random_, wait / 4);
    return true;
  }
  // If this client followed the job before, its own lost connection may still count as a follower.
  const bool is_full = refused.code == ErrorCode::kBusy && found != jobs_.end() && !found->second.is_heard;
  if (refused.code != ErrorCode::kNotFound && !is_full) return true;  // tried again after attach_again
  attach_requests_.erase(attached);
  if (found == jobs_.end()) return true;
  const JobId id = found->first;
  const FollowedJob job = std::move(found->second);
  jobs_.erase(found);
  for (const Follow& f : job.follows) {
    if (f.stream.on_lost) f.stream.on_lost(id, {refused.code, refused.message});
  }
  return true;
}

void JobStreams::close(const Refusal& why) {
  attach_requests_.clear();
  for (const auto& [id, job] : std::exchange(jobs_, {})) {
    for (const Follow& f : job.follows) {
      if (f.stream.on_lost) f.stream.on_lost(id, why);
    }
  }
}

}  // namespace optserve::client
