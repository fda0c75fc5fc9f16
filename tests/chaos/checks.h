// Reconciles the ledgers with the promises: what each client was told against what the system says afterwards.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ledger.h"
#include "nemesis.h"

namespace optserve::chaos {

// What the system says about a job afterwards.
struct Answer {
  bool found = false;
  std::string state, text, why_not;
  int attempts = 0;
};

struct Evidence {
  uint64_t seed = 0;
  std::vector<Ledger> ledgers;            // by client
  std::vector<std::string> references;    // by variant: the text of an undisturbed run
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

// One line for each broken promise, which names client and job.
std::vector<std::string> check_jobs(const Evidence& evidence);
Totals count_jobs(const std::vector<Ledger>& ledgers);
// The longest time in which no client received anything, between the two instants.
int64_t longest_silence_ms(const std::vector<Ledger>& ledgers, int64_t from_ms, int64_t to_ms);
// The longest time without news of each job that lost a worker, less what a fault of the scheduler or of the job's
// client took of it.
Times silence_of_retried(const std::vector<Ledger>& ledgers, const std::vector<FaultRecord>& records);
// By fault: from its injection until a job that was accepted after it had succeeded (of that client, if a client was
// hit). Faults after which no job was accepted are left out.
std::map<std::string, Times> recovery_times(const std::vector<Ledger>& ledgers,
                                            const std::vector<FaultRecord>& records);

}  // namespace optserve::chaos
