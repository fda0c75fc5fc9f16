// The settings of a scheduler. Times are those of its own clock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/limits.h"
#include "keys/tenant_quotas.h"
#include "scheduler/leases/worker_speed.h"
#include "scheduler/queue/tenant_weights.h"
#include "transport/service.h"

namespace optserve::scheduler {

struct SchedulerOptions {
  transport::PortId clients_port = 0;
  transport::PortId services_port = 1;
  Instant start{};                                      // when the process started
  std::function<int64_t()> wall_ms = [] { return 0; };  // the wall clock, for what people are shown and nothing else
  uint64_t seed = 0;                                    // of retry delays
  std::function<JobId()> new_job_id = &JobId::random;   // never gives one twice; not guessable outside tests
  std::vector<std::string> models;                      // served names that are known before a service registers them

  Duration service_lost_after = seconds(5);  // of silence
  // A service whose connection has ended is lost unless it comes back on another one within this time: a live process
  // connects again after 100 to 200 ms.
  Duration service_returns_within = milliseconds(300);
  StepPace::Bounds service_stalled_after;  // a worker with jobs that reports neither steps nor tokens
  Duration encode_timeout = seconds(2);
  Duration decode_timeout = seconds(1);
  int tokenizer_tries = 5;
  int crashes_max = 3;  // stops of the scheduler while a job was leased, before the job is given up as their cause
  Duration progress_interval = seconds(1);
  Duration models_grace = seconds(10);  // after a restart, for services to register their models again
  Duration slow_client_pause = milliseconds(200);
  Duration slow_job{};                          // a job whose first token takes longer is logged; 0: none is
  Duration dead_ttl = seconds(7 * 24 * 3'600);  // how long dead jobs are kept, to be looked at and put back
  Duration disconnect_grace = seconds(15);      // for the client of a job that is cancelled when it is left
  Duration sign_of_life_interval = seconds(3);  // of such a job to its followers
  Duration silent_client_after = seconds(60);   // a client with Credit and without streams is forgotten

  // Bounds of the queue. A tenant may hold a multiple of what is free, such that one tenant alone gets `tenant_share`
  // of each bound.
  size_t open_jobs_max = limits::kOpenJobsMax;
  size_t queue_bytes_max = size_t{1} << 30;  // prompts and outputs of open jobs
  double queue_seconds_max = 600;            // of work that waits for one model, once its speed is measured
  size_t tenant_jobs_max = limits::kOpenJobsMax;
  double tenant_share = 0.9;  // above 0; 1: no limit
  TenantWeights tenant_weights;
  std::shared_ptr<const keys::TenantQuotas> tenant_quotas;  // at the start; nullptr: none
  bool isolate_tenants = false;  // nothing of a tenant's prompts is shared with others in workers' prefix caches
  bool prefix_affinity = true;   // prefer a group that was recently sent the same beginning of a prompt

  std::string waiting_folder;             // for jobs that wait behind many others; "": they are in memory
  size_t waiting_in_memory_max = 20'000;  // waiting jobs kept in memory, and as many that were read back
  size_t prompt_bytes_kept = 1'024;       // of the text of a prompt, for those who ask about the job
  size_t known_keys_max = 500'000;        // open jobs and kept results
  size_t recent_bytes_max = 64 << 20;     // results held in memory besides the journal
  size_t subscriptions_per_job_max = 64;
  size_t store_questions_max = 10'000;    // waiting for the journal's answer
  size_t lists_max = 16;                  // ListJobs that are being answered
  size_t group_cancels_max = 64;          // groups that are being cancelled
  size_t operator_jobs_per_turn = 1'000;  // cancelled in one turn of the loop, and ten times as many looked at
};

}  // namespace optserve::scheduler
