// The job queue as a state machine: admission, order, leases, streams and results. What must survive is in the
// JobStore; answers that promise something wait for it (Outbox::send_after).
//
// Implementation: scheduler_service.cc (message routing, time), admission.cc (Submit), client_requests.cc (the other
// questions of clients), operator_requests.cc (those of operators), registration.cc (services come and go), dispatch.cc
// (leases begin and are lost), output.cc (tokens, text and the end of a job), queue_time.cc (delays and limits of
// time), queue_places.cc (where a job stands, what models have before them).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "journal/journal.h"
#include "scheduler/clients/client_streams.h"
#include "scheduler/jobs/finished_jobs.h"
#include "scheduler/clients/follower_watch.h"
#include "scheduler/jobs/group_table.h"
#include "scheduler/operators/job_lister.h"
#include "scheduler/jobs/job_table.h"
#include "scheduler/jobs/job_times.h"
#include "scheduler/queue/model_queues.h"
#include "scheduler/queue/queue_modes.h"
#include "scheduler/queue/queue_bounds.h"
#include "scheduler/scheduler_metrics.h"
#include "scheduler/scheduler_options.h"
#include "scheduler/leases/service_table.h"
#include "scheduler/operators/store_questions.h"
#include "scheduler/output/tokenizer_pool.h"
#include "transport/service.h"

namespace optserve::scheduler {

class SchedulerService final : public transport::Service {
 public:
  // Takes over what the journal recovered (term 1 and nothing else for a MemoryStore). `store` and `registry` outlive
  // the service.
  SchedulerService(SchedulerOptions options, journal::JobStore& store, journal::Recovery recovery, Registry& registry);

  void on_message(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out) override;
  void on_undeliverable(const transport::Peer& to, protocol::Message message, bool slow, Instant now,
                        transport::Outbox& out) override;
  void on_tick(Instant now, transport::Outbox& out) override;
  void on_flush(Instant now, transport::Outbox& out) override;
  void begin_drain(Instant now, transport::Outbox& out) override;
  bool is_drained() const override;

  // The store has answers to what it was asked.
  void on_answers(Instant now, transport::Outbox& out);
  // The process ends: leases that still run are given back, so that the next start does not count them as crashes.
  void give_back_leases();

  // For tests and the simulation.
  const JobTable& jobs() const { return jobs_; }
  const ServiceTable& services() const { return services_; }
  const ModelQueues& queues() const { return queues_; }
  const QueueBounds& bounds() const { return bounds_; }

 private:
  using Peer = transport::Peer;
  using Outbox = transport::Outbox;

  // How a job ends.
  struct End {
    protocol::JobState state = protocol::JobState::kSucceeded;
    protocol::FinishReason reason = protocol::FinishReason::kNone;
    std::optional<ErrorCode> error;
    std::string message;
  };

  // A group whose open jobs are being cancelled.
  struct GroupCancel {
    Peer peer;
    protocol::GetGroup asked;
    uint64_t before_order = 0;
  };

  // The messages of one round of dispatch, by the worker's serial.
  struct Dispatching {
    struct Batch {
      Peer to;
      std::vector<protocol::Dispatch> dispatches;
      std::vector<protocol::ConvertDispatch> conversions;
      size_t tokens = 0;  // in the last dispatch
      uint64_t after = 0;
    };
    std::map<uint64_t, Batch> batches;
    size_t leases = 0;
  };

  void refuse_to(const Peer& to, uint64_t request, const Refusal& why, Outbox& out);
  int64_t wall_ms(Instant now) const;
  void update_gauges();
  void recover(journal::Recovery recovery);

  // Messages of clients.
  void on_client_message(const Peer& from, protocol::Message message, Instant now, Outbox& out);
  void on(const Peer& from, protocol::Submit message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::Attach& message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::Cancel& message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::GetJob& message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::GetStatus& message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::Credit& message, Instant now, Outbox& out);
  protocol::SystemStatus system_status(uint64_t request, Instant now) const;

  // Messages of operators.
  void on(const Peer& from, const protocol::Control& message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::ListJobs& message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::Requeue& message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::Purge& message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::GetGroup& message, Instant now, Outbox& out);
  void on(const Peer& from, const protocol::Backup& message, Instant now, Outbox& out);
  Status check_control(const protocol::Control& message) const;
  std::vector<std::string> known_models() const;
  void on_scanned(JobScan scan, Instant now, Outbox& out);
  Status check_put_back(const protocol::JobSpec& spec);
  Job& put_back(uint64_t dead_order, journal::Accepted record, Instant now);
  void send_group(const Peer& to, const protocol::GetGroup& asked, Outbox& out);
  void cancel_groups(Instant now, Outbox& out);
  // A bounded part of what takes longer.
  void work_for_operators(Instant now, Outbox& out);

  // Messages of services.
  void on_service_message(const Peer& from, protocol::Message message, Instant now, Outbox& out);
  void on(const Peer& from, protocol::Register message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::Heartbeat& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::Goodbye& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, protocol::Encoded message, Instant now, Outbox& out);
  void on(ServiceEntry& from, protocol::Decoded message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::Tokens& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::PromptLogprobs& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, protocol::Hypotheses message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::LeaseFailed& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::ConvertProgress& message, Instant now, Outbox& out);

  // Admission.
  protocol::SubmitOutcome admit(protocol::JobSpec spec, std::vector<JobId>& followed, uint64_t& after, Instant now);
  Status check_model(const protocol::JobSpec& spec, Instant now) const;
  Status check_length(const std::string& model, size_t prompt_tokens, int32_t max_new_tokens) const;
  std::optional<protocol::SubmitOutcome> check_room(const protocol::JobSpec& spec);
  static int64_t cost_of(const protocol::JobSpec& spec, const ModelQueue& queue);
  Job& add_job(std::unique_ptr<Job> owned);
  Job& accept(protocol::JobSpec spec, std::string encoded, std::string sha256, Instant now);
  void begin(Job& job, Instant now);
  void on_encoded(Job& job, protocol::EncodedItem item, Instant now);

  // Questions about jobs, open or ended. A result that is not in memory is asked of the store.
  void find_result(const Peer& from, uint64_t request, AskedResult asked, Instant now, Outbox& out);
  void send_result(const StoreQuestion& asker, const SharedResult& result, uint64_t after, Outbox& out);
  // False: too many questions are open; the peer was told.
  bool ask_store(StoreQuestion question, journal::Question to_store, Outbox& out);
  void on_answer(const StoreQuestion& asker, const AskedResult& what, journal::ResultFound answer, Outbox& out);
  void on_answer(const StoreQuestion& asker, AskedList& what, journal::EndedListed answer, Outbox& out);
  void on_answer(const StoreQuestion& asker, const AskedRequeue& what, journal::DeadFound answer, Instant now,
                 Outbox& out);
  void on_answer(const StoreQuestion& asker, const journal::EndedPurged& answer, Outbox& out);
  protocol::JobResult describe(const Job& job) const;

  // Leases.
  void enqueue(Job& job, Instant now);
  void dispatch(Instant now, Outbox& out);
  void dispatch_queue(ModelQueue& queue, Dispatching& round, Instant now);
  void lease(Job& job, ServiceEntry& worker, Dispatching& batch, Instant now);
  protocol::DispatchItem dispatch_item(Job& job, Instant now);
  void release(Job& job);
  void revoke(Job& job);
  void lose_lease(Job& job, const std::string& why, bool counts, Instant now);
  void give_up(Job& job, std::string why, Instant now);
  static std::string last_attempt(const Job& job);
  void lose_service(ServiceEntry& entry, const std::string& why, Instant now);
  void ask_again(Job& job, bool counts, Instant now);
  void end_session(ServiceEntry& entry, const std::string& why, bool counts, Instant now);
  void undelivered_dispatch(ServiceEntry& worker, const std::vector<uint64_t>& leases, Instant now);
  Job* leased_job(ServiceEntry& from, uint64_t term, uint64_t lease);
  void send_revokes(Outbox& out);

  // Output.
  static int64_t take_processed(Job& job);
  void complete(Job& job, Instant now);
  void take_token(ServiceEntry& from, Job& job, const protocol::Tokens& message, size_t index, Instant now);
  void save_progress(Job& job, Instant now);
  void decode_more(Job& job);
  void on_decoded(Job& job, protocol::DecodedItem item, Instant now);
  void finish(Job& job, End end, Instant now);
  journal::Finished finished_record(const Job& job, const protocol::JobResult& result, int64_t expires_wall_ms) const;
  void observe(const Job& job, const protocol::JobResult& result, Instant now);
  // The tables that know of every job.
  void note_open(Job& job);
  void note_ended(Job& job, protocol::JobState state, uint64_t sequence, int64_t expires_wall_ms);
  void forget_group_members();

  // Followers.
  bool follow(Job& job, const std::shared_ptr<Client>& client, uint64_t text_offset, uint64_t after, Instant now);
  void check_followers(Instant now, Outbox& out);

  // Time.
  void delay(Job& job, Instant until);
  void leave_queues(Job& job);
  void expire_jobs(Instant now);
  void end_delays(Instant now);
  void check_services(Instant now);
  void note_step(ServiceEntry& worker, Instant now);

  // Places.
  struct Place {
    uint32_t position = 0;
    int64_t eta_ms = -1;
  };
  Place place_of(const Job& job, Instant now) const;
  void tell_places(Instant now);
  std::vector<protocol::ModelStatus> model_statuses() const;
  void update_queue_gauges();
  void resume_clients(Instant now, Outbox& out);

  const SchedulerOptions options_;
  journal::JobStore& store_;
  const uint64_t term_;
  const bool restarted_;
  SchedulerMetrics metrics_;

  JobTable jobs_;
  ModelQueues queues_;
  QueueBounds bounds_;
  std::map<std::pair<Instant, uint64_t>, Job*> delayed_;  // by time and order
  ServiceTable services_;
  TokenizerPool tokenizers_;
  ClientStreams streams_;
  RecentResults recent_;
  IdempotencyKeys keys_;
  QueueModes modes_;
  GroupTable groups_;
  JobLister lister_;
  StoreQuestions questions_;
  FollowerWatch followers_;
  std::deque<GroupCancel> group_cancels_;
  std::unordered_set<JobId> requeues_;  // asked of the store

  uint64_t next_order_ = 1;
  uint64_t next_lease_ = 1;
  uint64_t durable_ = 0;  // as of the present turn, before the loop released what waited for it
  bool draining_ = false;
  std::map<std::pair<Peer, uint64_t>, std::pair<uint64_t, std::vector<uint64_t>>>
      revokes_;  // peer, term: after, leases
  int64_t finished_count_ = 0, failed_count_ = 0;
  Instant next_sweep_{}, next_places_{};
  std::mt19937_64 random_;
};

}  // namespace optserve::scheduler
