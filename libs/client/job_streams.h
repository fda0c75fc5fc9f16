// The streams of one scheduler's jobs: how much of the text each follower has, which events to request again, and how
// many bytes the followers have consumed. It does no I/O and reads no clock.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "client/client.h"
#include "client/session_options.h"

namespace optserve::client {

class JobStreams {
 public:
  using FollowId = uint64_t;

  // `next_request` gives the numbers of the requests that are sent.
  JobStreams(const SessionOptions& options, std::function<uint64_t()> next_request);

  // Streams a job that the scheduler knows.
  FollowId follow(const JobId& job, uint64_t text_offset, JobStream stream, const Turn& turn);
  // The same for a job that was just submitted, which the scheduler streams without being asked.
  FollowId follow_new(const JobId& job, JobStream stream, const Turn& turn);
  // Reports that the job has its maximum number of followers.
  static void refuse_follow(const JobId& job, const JobStream& stream);
  void unfollow(FollowId id);

  // Events of a new job may arrive before the answer that tells its id. Between these two calls, which may be nested,
  // the ids of such jobs are remembered, and follow_new() requests their events again.
  void begin_submit() { ++open_submits_; }
  void end_submit();

  void on_event(const protocol::JobEvent& event, const Turn& turn);
  void on_finished(const protocol::JobResult& result);
  // False if this does not answer an Attach.
  bool on_refused(const protocol::Refused& refused, const Turn& turn);
  // Requests the events of streams that have been silent for too long or have a gap.
  void attach_due(const Turn& turn);
  // Requests the events of all streams, each at a random time within `spread`, because the scheduler may not know who
  // follows them.
  void attach_all(Duration spread, Instant now);
  // Ends every stream with this refusal.
  void close(const Refusal& why);

  // The sum of protocol::stream_cost() of all events and results whose callbacks have returned.
  uint64_t consumed() const { return consumed_; }

 private:
  // What the last event said, apart from text.
  struct Progress {
    protocol::JobState state;
    uint32_t position, tokens;
    int64_t eta_ms, done, total;
    bool operator==(const Progress&) const = default;
  };
  struct Follow {
    FollowId id;
    JobStream stream;
    uint64_t have;    // bytes of text delivered
    uint64_t digest;  // of that text; 0: it began in the middle
    std::optional<Progress> progress;
  };
  struct FollowedJob {
    std::vector<Follow> follows;
    Instant next_attach{}, last_attach{};
    uint64_t attach_request = 0;
    bool is_heard = false;  // the scheduler streams it, or did so before
  };

  // False if there is a gap between the text that the follower has and the event.
  static bool deliver(Follow& follow, const protocol::JobEvent& event);
  static void deliver_rest(Follow& follow, const protocol::JobResult& result);
  static void restart(Follow& follow, const JobId& job);
  void deliver_to_all(const protocol::JobEvent& event, const Turn& turn);
  void deliver_end(const protocol::JobResult& result);
  void attach(const JobId& id, FollowedJob& job, const Turn& turn);
  void note_unknown(const JobId& id);

  SessionOptions options_;
  std::function<uint64_t()> next_request_;
  std::mt19937_64 random_;
  FollowId last_follow_ = 0;
  std::unordered_map<JobId, FollowedJob> jobs_;
  std::unordered_map<uint64_t, JobId> attach_requests_;
  std::unordered_set<JobId> early_;  // jobs whose events came before the answer that tells their ids
  size_t open_submits_ = 0;
  uint64_t consumed_ = 0;
};

}  // namespace optserve::client
