// The job queue as a state machine: admission, order, leases, streams and results. What must survive is in the
// JobStore; answers that promise something wait for it (Outbox::send_after).
//
// Implementation: scheduler_service.cc (message routing, time), admission.cc (Submit), client_requests.cc (the other
// questions of clients), registration.cc (services come and go), dispatch.cc (leases begin and are lost), output.cc
// (tokens, text and the end of a job).
#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "journal/journal.h"
#include "scheduler/client_streams.h"
#include "scheduler/finished_jobs.h"
#include "scheduler/job_queue.h"
#include "scheduler/job_table.h"
#include "scheduler/scheduler_metrics.h"
#include "scheduler/scheduler_options.h"
#include "scheduler/service_table.h"
#include "scheduler/tokenizer_pool.h"
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

  // A client waits for a result that is not in memory.
  struct ResultQuestion {
    enum class Kind : uint8_t { kStatus, kFollow };
    Peer peer;
    uint64_t request = 0;
    JobId job;
    Kind kind = Kind::kStatus;
    uint64_t after = 0;  // of the answer before it
  };

  // The messages of one round of dispatch, by worker.
  struct Dispatching {
    struct Batch {
      protocol::Dispatch dispatch;
      std::vector<protocol::ConvertDispatch> conversions;
      size_t tokens = 0;
      uint64_t after = 0;
    };
    std::map<ServiceEntry*, Batch, ByInstance> batches;
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

  // Messages of services.
  void on_service_message(const Peer& from, protocol::Message message, Instant now, Outbox& out);
  void on(const Peer& from, protocol::Register message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::Heartbeat& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::Goodbye& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, protocol::Encoded message, Instant now, Outbox& out);
  void on(ServiceEntry& from, protocol::Decoded message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::Tokens& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::PromptLogprobs& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::LeaseFailed& message, Instant now, Outbox& out);
  void on(ServiceEntry& from, const protocol::ConvertProgress& message, Instant now, Outbox& out);

  // Admission.
  protocol::SubmitOutcome admit(protocol::JobSpec spec, std::vector<JobId>& followed, uint64_t& after, Instant now);
  Status check_model(const protocol::JobSpec& spec, Instant now) const;
  Status check_length(const std::string& model, size_t prompt_tokens, int32_t max_new_tokens) const;
  Job& accept(protocol::JobSpec spec, std::string encoded, std::string sha256, Instant now);
  void begin(Job& job, Instant now);
  void on_encoded(Job& job, protocol::EncodedItem item, Instant now);

  // Questions about jobs, open or ended.
  bool send_known_result(const Peer& to, const ResultQuestion& question, Instant now, Outbox& out);
  void ask_store(const JobId& job, ResultQuestion question, Outbox& out);
  void send_result(const ResultQuestion& question, const SharedResult& result, uint64_t after, Outbox& out);
  protocol::JobResult describe(const Job& job) const;

  // Leases.
  JobQueue& queue_of(const Job& job);
  void enqueue(Job& job, Instant now);
  void dispatch(Instant now, Outbox& out);
  void dispatch_queue(JobQueue& queue, const std::string& model, Dispatching& batch, Instant now);
  JobQueue::Verdict judge(const Job& job, const ServiceEntry& worker, bool has_others) const;
  void lease(Job& job, ServiceEntry& worker, Dispatching& batch, Instant now);
  void release(Job& job);
  void revoke(Job& job);
  void lose_lease(Job& job, const std::string& why, bool counts, Instant now);
  void lose_service(ServiceEntry& entry, const std::string& why, Instant now);
  void ask_again(Job& job, bool counts, Instant now);
  void end_session(ServiceEntry& entry, const std::string& why, bool counts, Instant now);
  void undelivered_dispatch(ServiceEntry& worker, const std::vector<uint64_t>& leases, Instant now);
  Job* leased_job(ServiceEntry& from, uint64_t term, uint64_t lease);
  void send_revokes(Outbox& out);

  // Output.
  void take_token(ServiceEntry& from, Job& job, const protocol::Tokens& message, size_t index, Instant now);
  void save_progress(Job& job, Instant now);
  void decode_more(Job& job);
  void on_decoded(Job& job, protocol::DecodedItem item, Instant now);
  void finish(Job& job, End end, Instant now);
  void observe(const Job& job, const protocol::JobResult& result, Instant now);

  // Time.
  void expire_jobs(Instant now);
  void check_services(Instant now);
  void resume_clients(Instant now, Outbox& out);

  const SchedulerOptions options_;
  journal::JobStore& store_;
  const uint64_t term_;
  const bool restarted_;
  SchedulerMetrics metrics_;

  JobTable jobs_;
  std::map<std::string, JobQueue> queues_;  // by model
  JobQueue conversions_;
  std::multimap<Instant, Job*> delayed_;
  ServiceTable services_;
  TokenizerPool tokenizers_;
  ClientStreams streams_;
  RecentResults recent_;
  IdempotencyKeys keys_;
  std::unordered_map<uint64_t, ResultQuestion> result_questions_;

  uint64_t next_order_ = 1;
  uint64_t next_lease_ = 1;
  uint64_t next_question_ = 1;
  uint64_t durable_ = 0;  // as of the present turn, before the loop released what waited for it
  bool dispatch_wanted_ = false;
  bool draining_ = false;
  std::map<std::pair<Peer, uint64_t>, std::pair<uint64_t, std::vector<uint64_t>>>
      revokes_;  // peer, term: after, leases
  int64_t finished_count_ = 0, failed_count_ = 0;
  Instant next_sweep_{};
  std::mt19937_64 random_;
};

}  // namespace optserve::scheduler
