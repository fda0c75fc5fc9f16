#include <malloc.h>

#include <memory>

#include "bench/bench_peers.h"
#include "bench/queue_parts.h"

namespace optserve::bench {
namespace {

constexpr size_t kSubmits = 4;
constexpr size_t kJobsPerSubmit = 256;
constexpr size_t kAsked = 2'000;

// Submits `jobs` jobs, and then asks how some of them are, one question at a time.
class DeepClient final : public BenchPeer {
 public:
  explicit DeepClient(size_t jobs) : jobs_(jobs) {}
  void on_flush(Instant, Outbox& out) override {
    for (; running && under_way_ < kSubmits && submitted_ < jobs_; ++under_way_) {
      protocol::Submit submit;
      submit.stream = false;
      for (size_t i = 0; i < kJobsPerSubmit && submitted_ < jobs_; ++i) {
        protocol::JobSpec spec;
        spec.key = "job-" + std::to_string(submitted_++);
        spec.model = "opt";
        spec.ttl_ms = limits::kJobTtlMsMax;
        for (int32_t id = 0; id < 128; ++id) spec.prompt_ids.push_back(100 + 371 * id);
        submit.jobs.push_back(std::move(spec));
      }
      out.send({0, {}}, std::move(submit));
    }
    if (!asking || asked_at_ != 0 || sample_.empty() || latencies_ns.size() >= kAsked) return;
    asked_at_ = now_ns();
    out.send({0, {}}, protocol::GetJob{1, sample_[latencies_ns.size() * 7'919 % sample_.size()]});
  }
  void on_message(const Peer&, Message message, Instant, Outbox&) override {
    if (const auto* reply = std::get_if<protocol::SubmitReply>(&message)) {
      --under_way_;
      for (const auto& outcome : reply->outcomes) {
        if (outcome.job && accepted++ % 100 == 0) sample_.push_back(*outcome.job);
      }
      answered += reply->outcomes.size();
    } else if (const auto* status = std::get_if<protocol::JobStatus>(&message)) {
      latencies_ns.push_back(now_ns() - std::exchange(asked_at_, 0));
      deepest = std::max(deepest, status->result.position);
      done = latencies_ns.size() >= kAsked;
    }
  }
  std::atomic<bool> running{false}, asking{false}, done{false};
  std::atomic<size_t> accepted{0}, answered{0};
  std::vector<int64_t> latencies_ns;  // these two: read after the thread has stopped
  uint32_t deepest = 0;

 private:
  const size_t jobs_;
  size_t submitted_ = 0, under_way_ = 0;
  int64_t asked_at_ = 0;
  std::vector<JobId> sample_;
};

double bytes_each(double mib, size_t jobs) { return mib * (1 << 20) / static_cast<double>(std::max<size_t>(1, jobs)); }

}  // namespace

std::vector<Figure> measure_deep_queue(const std::string& folder, size_t jobs) {
  BenchSchedulerOptions options{.folder = folder, .open_jobs_max = jobs + 1};
  options.journal = std::make_shared<BenchJournal>(folder);
  const std::string name = std::to_string(jobs) + " queued jobs";
  std::vector<Figure> figures;
  {
    BenchScheduler scheduler(options);
    DeepClient client(jobs);
    const auto thread = scheduler.connect(client, 0);
    std::this_thread::sleep_for(milliseconds(300));
    const double before = resident_mib();
    const int64_t start = now_ns();
    client.running = true;
    while (client.answered < jobs) std::this_thread::sleep_for(milliseconds(10));
    const double seconds = static_cast<double>(now_ns() - start) * 1e-9;
    if (client.accepted < jobs) throw Error("only " + std::to_string(client.accepted) + " jobs were accepted");
    ::malloc_trim(0);
    const double used = resident_mib() - before;
    figures.push_back({name + ": accepted", "jobs/s", static_cast<double>(jobs) / seconds});
    figures.push_back({name + ": resident memory", "MiB", used});
    figures.push_back({name + ": memory a job", "bytes", bytes_each(used, jobs)});
    client.asking = true;
    while (!client.done) std::this_thread::sleep_for(milliseconds(10));
    thread->stop();
    figures.push_back({name + ": deepest place that was told", "jobs", static_cast<double>(client.deepest)});
    add_quantiles(figures, name + ": answer with place and ETA", client.latencies_ns);
  }
  ::malloc_trim(0);
  const double before = resident_mib();
  const int64_t start = now_ns();
  const BenchScheduler scheduler(options);
  figures.push_back({name + ": start", "s", static_cast<double>(now_ns() - start) * 1e-9});
  ::malloc_trim(0);
  figures.push_back({name + ": memory a job after the start", "bytes", bytes_each(resident_mib() - before, jobs)});
  return figures;
}

}  // namespace optserve::bench
