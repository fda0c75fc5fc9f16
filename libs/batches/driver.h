// Runs batches against the schedulers: submits what the runs want, follows the jobs, and reports their outcomes to the
// runs. It belongs to one thread; the client's thread only hands over events.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "batches/batch_run.h"
#include "client/async_client.h"

namespace optserve::batches {

class Driver {
 public:
  // The references outlive the driver.
  Driver(client::AsyncClient& client, const Clock& clock);
  // The jobs of runs that have not been removed go on without being followed.
  ~Driver();
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  // A run takes part until it is removed, and must live until then. Returns the number of the run in this driver.
  uint64_t add(BatchRun& run);
  void remove(uint64_t number);
  // Cancels jobs that a run has given up. Nobody waits for the answers.
  void cancel(const std::vector<JobId>& jobs);

  // Submits what the runs want and handles events. Waits for events for at most `wait`.
  void step(milliseconds wait);
  // Ends step() early. From any thread.
  void wake();

 private:
  struct Inbox;
  void submit(uint64_t number, BatchRun::Work work);

  client::AsyncClient& client_;
  const Clock& clock_;
  const std::shared_ptr<Inbox> inbox_;  // the client's callbacks may outlive the driver
  std::map<uint64_t, BatchRun*> runs_;
  uint64_t last_number_ = 0;
};

}  // namespace optserve::batches
