#include <malloc.h>
#include <sys/resource.h>

#include <memory>

#include "bench/bench_journal.h"
#include "bench/queue_parts.h"
#include "protocol/codec.h"

namespace optserve::bench {
namespace {

journal::Accepted job(uint64_t order) {
  journal::Accepted record;
  record.job = JobId::random();
  record.order = order;
  record.accepted_wall_ms = 1;
  record.payload_sha256.assign(32, 'd');
  protocol::JobSpec spec;
  spec.key = "job-" + std::to_string(order);
  spec.model = "opt";
  spec.prompt.assign(512, 'p');
  record.encoded_spec = protocol::encode_job_spec(spec);
  return record;
}

double processor_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

void wait_for_backlog(const journal::Journal& store, uint64_t appended, uint64_t allowed) {
  while (appended - store.durable() > allowed) std::this_thread::sleep_for(microseconds(20));
}

}  // namespace

Figure measure_commits(const std::string& folder, size_t batch, int seconds) {
  BenchJournal place(folder);
  const SystemClock clock;
  journal::Recovery recovery;
  journal::JournalOptions& options = place.options;
  options.batch_records_max = batch;
  const auto store = journal::Journal::open(options, clock, recovery);
  const int64_t start = now_ns();
  uint64_t appended = 0;
  // The records of the next commit are always there, and hardly more, so that a commit never waits and the queue stays
  // short.
  while (now_ns() - start < int64_t{seconds} * 1'000'000'000) {
    appended = store->append(job(appended + 1));
    wait_for_backlog(*store, appended, 2 * batch);
  }
  const double rate = static_cast<double>(store->durable()) / (static_cast<double>(now_ns() - start) * 1e-9);
  return {"journal: durable accepts, " + std::to_string(batch) + " a commit", "jobs/s", rate};
}

std::vector<Figure> measure_recovery(const std::string& folder, size_t jobs) {
  const BenchJournal place(folder);
  const SystemClock clock;
  const journal::JournalOptions& options = place.options;
  {
    journal::Recovery recovery;
    const auto store = journal::Journal::open(options, clock, recovery);
    for (uint64_t order = 1; order <= jobs; ++order) {
      store->append(job(order));
      wait_for_backlog(*store, order, 10'000);
    }
  }
  ::malloc_trim(0);
  const double before = resident_mib();
  const double processor_before = processor_seconds();
  const int64_t start = now_ns();
  journal::Recovery recovery;
  const auto store = journal::Journal::open(options, clock, recovery);
  const double elapsed = static_cast<double>(now_ns() - start) * 1e-9;
  const double processor = processor_seconds() - processor_before;
  const double used = resident_mib() - before;
  const std::string name = "recovery of " + std::to_string(recovery.open.size()) + " open jobs";
  return {{name, "s", elapsed},
          {name + ": processor time", "s", processor},
          {name + ": resident memory", "MiB", used},
          {name + ": memory a job, SQLite's cache included", "bytes",
           used * (1 << 20) / static_cast<double>(recovery.open.size())}};
}

}  // namespace optserve::bench
