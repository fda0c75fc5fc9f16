// What a client does on its connection, without the connection: requests with retries, streams that resume, liveness.
// A state machine for ServiceLoop and for tests; libs/client/client.h is what programs use.
//
// A connection counts as lost after 5 s of silence or when a message cannot be handed over. Once the scheduler is heard
// again, or answers with another term, every open request is repeated and every stream attached again.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "client/client.h"
#include "transport/service.h"

namespace optserve::client {

using transport::Outbox;
using transport::Peer;

struct SessionOptions {
  transport::PortId port = 0;
  std::string endpoint;                      // for messages
  Duration retry_first = milliseconds(250);  // waits between attempts: doubling to retry_max, with full jitter
  Duration retry_max = milliseconds(8'000);
  Duration answer_within = milliseconds(2'000);  // then the request is repeated
  Duration lost_after = milliseconds(5'000);
  Duration attach_again = milliseconds(10'000);  // a stream this long without events is attached again
  uint64_t seed = 0;                             // of the jitter
};

// When a call into the session happens, and where what it sends goes.
struct Turn {
  Instant now;
  Outbox& out;
};

class ClientSession final : public transport::Service {
 public:
  using Answer = std::function<void(Result<protocol::Message>, const Turn&)>;
  using FollowId = uint64_t;
  // One outcome a job; the streams that follow the accepted ones.
  using Submitted = std::function<void(Result<std::vector<protocol::SubmitOutcome>>, std::vector<FollowId>)>;

  explicit ClientSession(const SessionOptions& options);

  // Sends a message that has a `request` field, which is set here. `done` is called once: with the answer, with the
  // scheduler's refusal, or with kUnavailable at the deadline. While the scheduler is busy, with all of it or with
  // single jobs of a Submit, the message is repeated; its last word before the deadline counts.
  void call(protocol::Message request, Instant deadline, const Turn& turn, Answer done);
  // Jobs that cannot be valid are refused here; the others travel in as many messages as needed.
  void submit(std::vector<protocol::JobSpec> jobs, JobStream stream, Instant deadline, const Turn& turn,
              Submitted done);
  // Streams a job that the scheduler knows.
  FollowId follow(const JobId& job, uint64_t text_offset, JobStream stream, const Turn& turn);
  void unfollow(FollowId id);
  // Ends every open request and stream with this refusal.
  void close(const Refusal& why, const Turn& turn);

  void on_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) override;
  void on_undeliverable(const Peer& to, protocol::Message message, bool slow, Instant now, Outbox& out) override;
  void on_tick(Instant now, Outbox& out) override;
  Duration tick_interval() const override;
  void begin_drain(Instant, Outbox&) override {}
  bool is_drained() const override { return true; }

 private:
  struct Call {
    protocol::Message message;
    Instant deadline;
    Answer done;
    Instant next_send;
    Duration wait;
    std::vector<protocol::SubmitOutcome> decided;  // of a Submit that is repeated for those that were refused as busy
  };
  struct Follow {
    FollowId id;
    JobStream stream;
    uint64_t have;  // bytes of text delivered
  };
  struct FollowedJob {
    std::vector<Follow> follows;
    Instant next_attach{}, last_attach{};
    uint64_t attach_request = 0;
  };
  struct Batch;

  Peer scheduler() const { return {options_.port, {}}; }
  void send_batch(const std::shared_ptr<Batch>& batch, std::vector<size_t> indices, Instant deadline, const Turn& turn);
  void on_submit_reply(Batch& batch, const std::vector<size_t>& indices, Result<protocol::Message> answer,
                       const Turn& turn);
  void heard(const Turn& turn);
  void resync(const Turn& turn);
  void send_call(Call& call, const Turn& turn);
  void answer_call(uint64_t request, Result<protocol::Message> answer, const Turn& turn);
  bool put_off(uint64_t request, const Turn& turn);
  void on_submit_answer(protocol::SubmitReply reply, const Turn& turn);
  void attach(const JobId& id, FollowedJob& job, const Turn& turn);
  void on_refused(const protocol::Refused& refused, const Turn& turn);
  void on_event(const protocol::JobEvent& event, const Turn& turn);
  void on_finished(const protocol::JobResult& result);
  void on_unknown_job(const JobId& id);
  void expire_calls(const Turn& turn);
  Duration ping_interval(Instant now) const;
  Duration jitter(Duration up_to);

  SessionOptions options_;
  std::mt19937_64 random_;
  uint64_t last_request_ = 0;
  uint64_t last_follow_ = 0;
  uint64_t ping_number_ = 0;
  uint64_t term_ = 0;  // of the scheduler; 0: none yet
  std::map<uint64_t, Call> calls_;
  std::unordered_map<JobId, FollowedJob> jobs_;
  std::unordered_map<uint64_t, JobId> attach_requests_;
  // Jobs whose events came before the answer that names them.
  std::unordered_set<JobId> early_;
  size_t open_stream_submits_ = 0;
  bool lost_ = true;
  bool started_ = false;
  Instant lost_since_{}, last_heard_{}, next_ping_{}, next_reconnect_{}, last_tick_{};
};

}  // namespace optserve::client
