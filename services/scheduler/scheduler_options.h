// What the scheduler is told at start. Times are of its own clock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/limits.h"
#include "transport/service.h"

namespace optserve::scheduler {

struct SchedulerOptions {
  transport::PortId clients_port = 0;
  transport::PortId services_port = 1;
  Instant start{};            // now, and
  int64_t start_wall_ms = 0;  // the wall clock at the same moment: only differences to it are used afterwards
  uint64_t seed = 0;          // of retry delays
  std::function<JobId()> new_job_id = &JobId::random;  // never gives one twice; not guessable outside tests
  std::vector<std::string> models;                     // served names that are known before a service registers them

  Duration service_lost_after = seconds(5);      // of silence
  Duration service_stalled_after = seconds(60);  // a worker with jobs that reports neither steps nor tokens
  Duration encode_timeout = seconds(2);
  Duration decode_timeout = seconds(1);
  int tokenizer_tries = 5;
  int crashes_max = 3;  // scheduler stops that found a job leased, before it is given up as poison
  Duration progress_interval = seconds(1);
  Duration models_grace = seconds(10);  // after a restart: an unknown model may only not have registered again yet
  Duration slow_client_pause = milliseconds(200);

  size_t open_jobs_max = limits::kOpenJobsMax;
  size_t known_keys_max = 500'000;     // open jobs and kept results
  size_t recent_bytes_max = 64 << 20;  // results held in memory besides the journal
  size_t subscriptions_per_job_max = 64;
  size_t result_questions_max = 10'000;  // waiting for the journal's answer
};

}  // namespace optserve::scheduler
