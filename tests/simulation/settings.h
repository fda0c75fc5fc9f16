// The settings of a run, the invariants, and the bugs that can be planted.
#pragma once

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace optserve::simulation {

enum class Invariant : uint8_t {
  kAckedJobKept = 1,     // I1: no acknowledged job is missing
  kOneEnd = 2,           // I2: at most one end a job, never changed
  kCurrentToken = 3,     // I3: what ends a job, or adds to it, comes under its present lease
  kAttemptsCounted = 4,  // I4: attempts stay within the limit and are on disk before the work can do harm
  kOneLease = 5,         // I5: at most one valid lease a job
  kJournalIsState = 6,   // I6: what the journal would rebuild is what is in memory
  kBounded = 7,          // I7: containers stay within their caps
  kKeyNamesOneJob = 8,   // I8: the idempotency map is a function
  kStreamWhole = 9,      // I9: positions grow without gap, each once; the text is the reference
  kInTime = 10,          // I10: a job is leased within its time only, and ends when that has run out
  kFairShare = 11,       // I11: shares of tenants that wait drift apart by one job of each at most
  kBoundedWork = 12,     // I12: work per event does not grow with the system
  kLiveness = 13,        // after the faults: every job ends, every worker is used
  kHeld = 14,            // what an operator holds gets no new work, or no new jobs
  kGroupCounts = 15,     // a group counts what its jobs are
};

// Something that is wrong on purpose, so that the check of an invariant can be seen to find it.
enum class Plant : uint8_t {
  kNone,
  kEarlyDurable,    // I1: the store says that records are on disk before they are
  kOtherEnd,        // I2: the network repeats a JobFinished with another text
  kOldToken,        // I3: a Finished names an earlier lease
  kWallClock,       // I1: the store keeps results by the wall clock
  kNoFence,         // I3: tokens of an ended lease arrive as if they were of the present one
  kForgetAttempts,  // I4: the store does not keep the number of attempts
  kLeaseStays,      // I5: the end of a lease is not recorded
  kLoseRecord,      // I6: the store drops a record now and then
  kNoCap,           // I7: the scheduler is told another bound than the one that is checked
  kForgetKeys,      // I8: keys of ended jobs do not survive a restart
  kShiftedText,     // I9: the network moves a piece of text
  kLateReply,       // I9: the answer to a Submit leaves behind what follows from it
  kSlowClock,       // I10: the scheduler's clock loses a second in ten
  kOtherWeights,    // I11: the scheduler is not told the tenants' weights
  kScan,            // I12: each record costs a walk over all open jobs
  kForgetModes,     // held: what operators hold does not survive a restart
  kForgetGroups,    // groups: nor do the groups of jobs that have ended
  kLostWork,        // liveness: the network drops every tenth Dispatch though the connection lives
};
inline constexpr size_t kPlants = static_cast<size_t>(Plant::kLostWork) + 1;
struct PlantInfo {
  Plant plant;
  std::string_view name;
  Invariant breaks;
};
inline constexpr std::array<PlantInfo, kPlants - 1> kPlantTable{{
    {Plant::kEarlyDurable, "early-durable", Invariant::kAckedJobKept},
    {Plant::kWallClock, "wall-clock", Invariant::kAckedJobKept},
    {Plant::kOtherEnd, "other-end", Invariant::kOneEnd},
    {Plant::kOldToken, "old-token", Invariant::kCurrentToken},
    {Plant::kNoFence, "no-fence", Invariant::kCurrentToken},
    {Plant::kForgetAttempts, "forget-attempts", Invariant::kAttemptsCounted},
    {Plant::kLeaseStays, "lease-stays", Invariant::kOneLease},
    {Plant::kLoseRecord, "lose-record", Invariant::kJournalIsState},
    {Plant::kNoCap, "no-cap", Invariant::kBounded},
    {Plant::kForgetKeys, "forget-keys", Invariant::kKeyNamesOneJob},
    {Plant::kShiftedText, "shifted-text", Invariant::kStreamWhole},
    {Plant::kLateReply, "late-reply", Invariant::kStreamWhole},
    {Plant::kSlowClock, "slow-clock", Invariant::kInTime},
    {Plant::kOtherWeights, "other-weights", Invariant::kFairShare},
    {Plant::kScan, "scan", Invariant::kBoundedWork},
    {Plant::kForgetModes, "forget-modes", Invariant::kHeld},
    {Plant::kForgetGroups, "forget-groups", Invariant::kGroupCounts},
    {Plant::kLostWork, "lost-work", Invariant::kLiveness},
}};

// Thrown by a check; ends the run.
class Violation : public std::runtime_error {
 public:
  Violation(Invariant invariant, const std::string& what) : std::runtime_error(what), invariant_(invariant) {}
  Invariant invariant() const { return invariant_; }

 private:
  Invariant invariant_;
};

struct WorldSettings {
  uint64_t seed = 1;
  Plant plant = Plant::kNone;
  bool large = false;
  size_t workers = 3, tokenizers = 2, clients = 3;
  uint64_t jobs = 40;
  uint64_t open_jobs = 100'000;       // large: the most that are open at a time
  int64_t result_ttl_ms = 30'000;     // large: of each job
  bool hostile = false;               // the network also loses, repeats and reorders single messages
  Duration fault_time = seconds(40);  // then everything heals
  size_t open_jobs_max = 100'000;     // the scheduler's bounds
  size_t subscriptions_per_job_max = 64;
  bool rushes = false;         // many jobs of several tenants come at the same time
  std::string tenant_weights;  // as in the scheduler's option
  size_t operators = 0;
};

}  // namespace optserve::simulation
