// A client's side of the conversation with one scheduler, as a state machine without sockets: requests with retries,
// streams that resume, credit and liveness. ServiceLoop and tests run it; programs use client.h.
//
// A connection counts as lost after 5 s of silence, or when a message cannot be sent. While it is lost, only pings are
// sent. When the scheduler answers again, or with another term, every open request is repeated and every stream is
// attached again.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "client/job_streams.h"
#include "client/retry_budget.h"
#include "client/session_options.h"

namespace optserve::client {

class ClientSession final : public transport::Service {
 public:
  using FollowId = JobStreams::FollowId;
  using Answer = std::function<void(Result<protocol::Message>, const Turn&)>;
  // Called when the scheduler cannot be reached or, for a Submit, does not take jobs at the moment. True ends the
  // request at once instead of at its deadline, because another scheduler can be asked.
  using MayGiveUp = std::function<bool()>;

  // The outcome of submit().
  struct Submission {
    Result<std::vector<protocol::SubmitOutcome>> outcomes;  // one for each job
    std::vector<FollowId> follows;                          // the streams of the accepted jobs
    // Indices of refused jobs that this scheduler does not have and will never get, so that another may run them.
    std::vector<size_t> returned;
  };
  using Submitted = std::function<void(Submission, const Turn&)>;

  explicit ClientSession(const SessionOptions& options);

  // Sends a message that has a `request` field, which is set here. `done` is called once: with the answer, with the
  // scheduler's refusal, or with kUnavailable at the deadline. As long as the scheduler is busy or its disk is full,
  // for the whole message or for single jobs of a Submit, the message is repeated, and the last answer before the
  // deadline counts (SessionOptions::waits_while_busy). Returns the number of the request.
  uint64_t call(protocol::Message request, Instant deadline, const Turn& turn, Answer done,
                MayGiveUp may_give_up = nullptr);
  // Drops the request; its `done` will not be called.
  void forget(uint64_t request) { calls_.erase(request); }
  // Invalid jobs are refused here. The others are sent in as many messages as their size needs.
  void submit(std::vector<protocol::JobSpec> jobs, JobStream stream, Instant deadline, const Turn& turn, Submitted done,
              MayGiveUp may_give_up = nullptr);
  // Streams a job that the scheduler knows.
  FollowId follow(const JobId& job, uint64_t text_offset, JobStream stream, const Turn& turn);
  void unfollow(FollowId id) { streams_.unfollow(id); }
  // Ends every open request and stream with this refusal.
  void close(const Refusal& why, const Turn& turn);

  bool is_reachable() const { return !lost_; }
  // Whether the scheduler has been unreachable for longer than a new connection takes.
  bool is_down(Instant now) const { return lost_ && started_ && now - lost_since_ >= options_.down_after; }

  // How long the scheduler has been unreachable; zero while it is not.
  Duration unreachable_for(Instant now) const { return lost_ && started_ ? now - lost_since_ : Duration::zero(); }

  void on_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) override;
  void on_undeliverable(const Peer& to, protocol::Message message, bool slow, Instant now, Outbox& out) override;
  // Ends everything that is open with this reason, since waiting would not help.
  void on_not_let_in(transport::PortId port, const std::string& why, Instant now, Outbox& out) override;
  // What was asked for on the connection before is asked for again once the scheduler answers.
  void on_connected(transport::PortId port, Instant now, Outbox& out) override;
  void on_tick(Instant now, Outbox& out) override;
  Duration tick_interval() const override;
  void begin_drain(Instant, Outbox&) override {}
  bool is_drained() const override { return true; }

 private:
  enum class Fate : uint8_t {
    kAnswered,
    kReturned
  };  // kReturned: the scheduler certainly has none of the refused jobs
  using Done = std::function<void(Result<protocol::Message>, Fate, const Turn&)>;
  struct Call {
    protocol::Message message;
    Instant deadline;
    Done done;
    MayGiveUp may_give_up;
    Instant next_send;
    Duration wait;
    int handed_over = 0;      // the scheduler has received it at most this often
    bool after_loss = false;  // will be repeated because the connection was lost, not because the answer is late
    std::vector<protocol::SubmitOutcome> decided{};  // outcomes that are final, of a Submit that is repeated for others
  };
  struct Batch;

  Peer scheduler() const { return {options_.port, {}}; }
  void start_call(Call call, const Turn& turn);
  void send_due_call(Call& call, const Turn& turn);
  void answer_call(uint64_t request, Result<protocol::Message> answer, Fate fate, const Turn& turn);
  bool can_return(const Call& call) const;
  bool gives_up(const Call& call, Instant now) const;
  bool put_off(Call& call, int64_t retry_after_ms, Instant now);
  void on_submit_answer(protocol::SubmitReply reply, const Turn& turn);
  void on_refused(const protocol::Refused& refused, const Turn& turn);
  void turn_calls(const Turn& turn);
  void expire_call(uint64_t request, const Turn& turn);

  void send_batch(const std::shared_ptr<Batch>& batch, std::vector<size_t> indices, const Turn& turn);
  void on_submit_reply(Batch& batch, const std::vector<size_t>& indices, Result<protocol::Message> answer, Fate fate,
                       const Turn& turn);

  void heard(const Turn& turn);
  void resync(const Turn& turn);
  void send_credit(Outbox& out);
  Duration ping_interval(Instant now) const;

  SessionOptions options_;
  std::mt19937_64 random_;
  RetryBudget budget_{RetryBudget::Options{}};
  uint64_t last_request_ = 0;
  JobStreams streams_;
  uint64_t credited_ = 0;  // bytes that the last Credit reported as consumed
  uint64_t ping_number_ = 0;
  uint64_t term_ = 0;  // of the scheduler; 0: not known yet
  std::map<uint64_t, Call> calls_;
  std::string last_unasked_refusal_;  // the last refusal that belongs to no open request; for the log
  bool lost_ = true;
  bool started_ = false;
  Instant lost_since_{}, last_heard_{}, next_ping_{}, next_reconnect_{}, last_tick_{};
};

}  // namespace optserve::client
