// Compares what each client was told, according to the ledgers, with the promises and with what the system says
// afterwards.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ledger.h"
#include "nemesis.h"

namespace optserve::chaos {

// What the system says about a job after the run.
struct Answer {
  bool found = false;
  std::string state, text, why_not;
  int attempts = 0;
};

struct Evidence {
  uint64_t seed = 0;
  std::vector<Ledger> ledgers;            // by client
  std::vector<std::string> references;    // by variant: the text that a run without faults gives
  std::map<std::string, Answer> answers;  // by job id
};

struct Totals {
  int64_t submitted = 0, accepted = 0, undecided = 0, repeated = 0, conflicts = 0, retried = 0, pieces = 0;
  std::map<std::string, int64_t> refused;  // by reason
  std::map<std::string, int64_t> finals;   // by state
};

struct Times {
  int64_t count = 0, p50_ms = 0, max_ms = 0;
};

// One line for each broken promise, with the client and the job.
std::vector<std::string> check_jobs(const Evidence& evidence);
Totals count_jobs(const std::vector<Ledger>& ledgers);
// The longest time in which no client received anything, between the two instants.
int64_t longest_silence_ms(const std::vector<Ledger>& ledgers, int64_t from_ms, int64_t to_ms);
// For each job that lost a worker, the longest time without news of it, without the part that a fault of the scheduler
// or of the job's client accounts for.
Times silence_of_retried(const std::vector<Ledger>& ledgers, const std::vector<FaultRecord>& records);
// For each fault, the time from its injection until a job that was accepted later had succeeded. If a client was hit,
// only its own jobs count. Faults after which no job was accepted are left out.
std::map<std::string, Times> recovery_times(const std::vector<Ledger>& ledgers,
                                            const std::vector<FaultRecord>& records);

}  // namespace optserve::chaos
