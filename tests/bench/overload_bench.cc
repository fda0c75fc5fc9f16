// The job queue under a load that does not depend on what it answers: a real scheduler with its journal, a worker of a
// known speed, and a client whose jobs arrive at random moments that are fixed beforehand, so that a stall of the queue
// counts. Prints for each load how many jobs ended within their time, and how long tokens and refusals took; --json
// FILE writes the same as JSON.
//   overload_bench --loads 0.1,0.5,0.9,1,2,5,10 --seconds 10
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/config.h"
#include "bench/bench_peers.h"

namespace {

using namespace optserve;
using namespace optserve::bench;

constexpr size_t kSlots = 64;            // sequences that run at a time
constexpr int32_t kLeases = 80;          // the same, and those that wait in the worker
constexpr auto kStep = milliseconds(5);  // in which each running sequence gets one token
constexpr int kTokensMin = 8, kTokensMax = 56;
constexpr double kPeak = kSlots / 0.005 / ((kTokensMin + kTokensMax) / 2.0);  // jobs/s
constexpr int64_t kTtlMs = 2'000;

struct Options {
  std::vector<std::string> loads = {"0.1", "0.5", "0.9", "1", "2", "5", "10"};
  int seconds = 10;
  int warm_up = 4;
  int memory_jobs = 100'000;
  std::string folder = std::filesystem::temp_directory_path().string();
  std::string json;
};

int32_t length_of(uint64_t job) {
  std::mt19937_64 random(job);
  return std::uniform_int_distribution<int32_t>(kTokensMin, kTokensMax)(random);
}

// When each token left the worker, by job.
struct Stamps {
  explicit Stamps(size_t jobs) : at(jobs * kTokensMax) {}
  std::vector<std::atomic<int64_t>> at;
  std::atomic<int64_t>* of(uint64_t job) { return job * kTokensMax < at.size() ? &at[job * kTokensMax] : nullptr; }
};

// Gives the kSlots oldest of its leases one token each kStep.
class ModelledWorker final : public TokenWorker {
 public:
  explicit ModelledWorker(Stamps& stamps) : TokenWorker(kLeases), stamps_(stamps) {}
  void on_tick(Instant now, Outbox& out) override {
    link_.set_load({steps_, static_cast<int32_t>(leases_.size()), false});
    RegisteredPeer::on_tick(now, out);
  }
  void on_flush(Instant now, Outbox& out) override {
    if (leases_.empty() || now < next_step_) return;
    next_step_ = std::max<Instant>(next_step_ + kStep, now - kStep);
    ++steps_;
    step(kSlots, out, [this](const Lease& lease, int64_t stamp) {
      if (auto* at = stamps_.of(lease.job)) at[lease.position] = stamp;
    });
  }

 private:
  Stamps& stamps_;
  Instant next_step_{};
  uint64_t steps_ = 0;
};

// Nanoseconds, collected while measuring.
struct Latencies {
  std::vector<int64_t> job, token, refusal;
};

// Submits a job at each moment of a Poisson process and follows it.
class OpenLoopClient final : public BenchPeer {
 public:
  OpenLoopClient(double rate, uint64_t seed, Stamps& stamps) : gap_(rate), random_(seed), stamps_(stamps) {}

  void on_flush(Instant, Outbox& out) override {
    if (!running) return;
    const int64_t now = now_ns();
    if (next_ == 0) next_ = now;
    for (; next_ <= now; next_ += static_cast<int64_t>(gap_(random_) * 1e9)) {
      protocol::JobSpec spec;
      spec.key = "job-" + std::to_string(jobs_.size());
      spec.model = "opt";
      spec.prompt_ids.assign(32, 100);
      spec.max_new_tokens = length_of(jobs_.size());
      spec.sampling.seed = jobs_.size();
      spec.ttl_ms = kTtlMs;
      spec.result_ttl_ms = 60'000;
      protocol::Submit submit;
      submit.request = jobs_.size();
      submit.jobs.push_back(std::move(spec));
      jobs_.push_back(next_);
      offered += measuring;
      out.send({0, {}}, std::move(submit));
    }
  }
  void on_message(const Peer&, Message message, Instant, Outbox&) override {
    const int64_t now = now_ns();
    if (const auto* reply = std::get_if<protocol::SubmitReply>(&message)) {
      const protocol::SubmitOutcome& outcome = reply->outcomes.at(0);
      if (outcome.job) {
        index_[*outcome.job] = reply->request;
        accepted += measuring;
      } else if (measuring) {
        ++refused;
        latencies.refusal.push_back(now - jobs_[reply->request]);
      }
    } else if (const auto* events = std::get_if<protocol::JobEvents>(&message)) {
      for (const protocol::JobEvent& event : events->events) on_event(event, now);
    } else if (const auto* finished = std::get_if<protocol::JobFinished>(&message)) {
      if (!measuring) return;
      const bool good = finished->result.state == protocol::JobState::kSucceeded;
      ++(good ? succeeded : ended_otherwise);
      const auto found = index_.find(finished->result.job);
      if (good && found != index_.end()) latencies.job.push_back(now - jobs_[found->second]);
    }
  }

  std::atomic<bool> running{false}, measuring{false};
  std::atomic<uint64_t> offered{0}, accepted{0}, refused{0}, succeeded{0}, ended_otherwise{0};
  Latencies latencies;  // read after the thread has stopped

 private:
  void on_event(const protocol::JobEvent& event, int64_t now) {
    const auto found = index_.find(event.job);
    if (found == index_.end() || !measuring) return;
    const auto* at = stamps_.of(found->second);
    for (size_t i = 0; at != nullptr && i < event.text.size(); ++i) {
      latencies.token.push_back(now - at[event.text_offset + i]);
    }
  }

  std::exponential_distribution<double> gap_;
  std::mt19937_64 random_;
  Stamps& stamps_;
  std::vector<int64_t> jobs_;  // the moment at which each should have arrived
  int64_t next_ = 0;
  std::unordered_map<JobId, uint64_t> index_;
};

double quantile_ms(std::vector<int64_t>& values, double q) {
  if (values.empty()) return 0;
  const auto at = values.begin() + static_cast<ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return static_cast<double>(*at) * 1e-6;
}

struct Row {
  double load = 0, offered = 0, accepted = 0, goodput = 0, refused = 0, failed = 0;
  double job_p50 = 0, job_p99 = 0, token_p50 = 0, token_p99 = 0, refusal_p50 = 0, refusal_p99 = 0;
  double resident = 0;
};

Row measure(const Options& options, double load) {
  const double rate = load * kPeak;
  Stamps stamps(static_cast<size_t>(rate * (options.seconds + options.warm_up + 2)) + 1'000);
  BenchScheduler scheduler({.folder = options.folder, .open_jobs_max = limits::kOpenJobsMax});
  NullTokenizer tokenizer;
  ModelledWorker worker(stamps);
  OpenLoopClient client(rate, 1, stamps);
  const auto tokenizer_thread = scheduler.connect(tokenizer, 1);
  const auto worker_thread = scheduler.connect(worker, 1);
  while (!tokenizer.registered || !worker.registered) std::this_thread::sleep_for(milliseconds(1));
  const auto client_thread = scheduler.connect(client, 0);
  std::this_thread::sleep_for(milliseconds(300));
  client.running = true;
  std::this_thread::sleep_for(seconds(options.warm_up));
  client.measuring = true;
  const int64_t start = now_ns();
  std::this_thread::sleep_for(seconds(options.seconds));
  client.measuring = false;
  const double elapsed = static_cast<double>(now_ns() - start) * 1e-9;
  client.running = false;
  client_thread->stop();
  Latencies& seen = client.latencies;
  const auto per_second = [&](uint64_t count) { return static_cast<double>(count) / elapsed; };
  return {load,
          per_second(client.offered),
          per_second(client.accepted),
          per_second(client.succeeded),
          per_second(client.refused),
          per_second(client.ended_otherwise),
          quantile_ms(seen.job, 0.5),
          quantile_ms(seen.job, 0.99),
          quantile_ms(seen.token, 0.5),
          quantile_ms(seen.token, 0.99),
          quantile_ms(seen.refusal, 0.5),
          quantile_ms(seen.refusal, 0.99),
          resident_mib()};
}

// The memory of an open job that waits, including its prompt of 512 bytes or 128 ids, from the growth of this process.
double bytes_per_queued_job(const Options& options, bool ids) {
  class Submitter final : public BenchPeer {
   public:
    Submitter(size_t jobs, bool with_ids) : left_(jobs), ids_(with_ids) {}
    void on_flush(Instant, Outbox& out) override {
      if (!running || under_way_ >= 4 || left_ == 0) return;
      protocol::Submit submit;
      submit.stream = false;
      for (size_t i = 0; i < 128 && left_ > 0; ++i, --left_) {
        protocol::JobSpec spec;
        spec.key = "job-" + std::to_string(left_);
        spec.model = "opt";
        if (ids_) spec.prompt_ids.assign(128, 100);
        if (!ids_) spec.prompt.assign(512, 'x');
        spec.ttl_ms = limits::kJobTtlMsMax;
        submit.jobs.push_back(std::move(spec));
      }
      ++under_way_;
      out.send({0, {}}, std::move(submit));
    }
    void on_message(const Peer&, Message message, Instant, Outbox&) override {
      const auto* reply = std::get_if<protocol::SubmitReply>(&message);
      if (reply == nullptr) return;
      --under_way_;
      for (const auto& outcome : reply->outcomes) accepted += outcome.job.has_value();
      answered += reply->outcomes.size();
    }
    std::atomic<bool> running{false};
    std::atomic<size_t> accepted{0}, answered{0};

   private:
    size_t left_, under_way_ = 0;
    bool ids_;
  };
  BenchScheduler scheduler({.folder = options.folder});
  const auto jobs = static_cast<size_t>(options.memory_jobs);
  Submitter client(jobs, ids);
  const auto thread = scheduler.connect(client, 0);
  std::this_thread::sleep_for(milliseconds(300));
  const double before = resident_mib();
  client.running = true;
  while (client.answered < jobs) std::this_thread::sleep_for(milliseconds(10));
  return (resident_mib() - before) * (1 << 20) / static_cast<double>(std::max<size_t>(1, client.accepted));
}

void write_json(const std::string& path, const std::vector<Row>& rows, double text_bytes, double id_bytes) {
  std::ofstream file(path);
  file << "{\"peak_jobs_per_second\": " << kPeak << ", \"ttl_ms\": " << kTtlMs
       << ", \"bytes_per_queued_job_512_bytes_of_text\": " << text_bytes
       << ", \"bytes_per_queued_job_128_ids\": " << id_bytes << ",\n \"loads\": [\n";
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& r = rows[i];
    file << "  {\"load\": " << r.load << ", \"offered\": " << r.offered << ", \"accepted\": " << r.accepted
         << ", \"goodput\": " << r.goodput << ", \"refused\": " << r.refused << ", \"failed\": " << r.failed
         << ", \"job_ms\": [" << r.job_p50 << ", " << r.job_p99 << "], \"token_ms\": [" << r.token_p50 << ", "
         << r.token_p99 << "], \"refusal_ms\": [" << r.refusal_p50 << ", " << r.refusal_p99
         << "], \"resident_mib\": " << r.resident << "}" << (i + 1 < rows.size() ? "," : "") << "\n";
  }
  file << "]}\n";
  if (!file) throw Error("cannot write " + path);
}

void run(const Options& options) {
  std::printf("A worker of %.0f jobs/s; a job has %lld ms. Jobs/s, and median / p99 in ms.\n", kPeak,
              static_cast<long long>(kTtlMs));
  std::printf("%6s %9s %9s %9s %9s %8s %17s %15s %15s %8s\n", "load", "offered", "accepted", "in time", "refused",
              "failed", "job", "added, a token", "a refusal", "MiB");
  std::vector<Row> rows;
  for (const std::string& load : options.loads) {
    const Row row = measure(options, std::stod(load));
    std::printf("%6.2f %9.1f %9.1f %9.1f %9.1f %8.1f %8.1f %8.1f %7.2f %7.2f %7.2f %7.2f %8.1f\n", row.load,
                row.offered, row.accepted, row.goodput, row.refused, row.failed, row.job_p50, row.job_p99,
                row.token_p50, row.token_p99, row.refusal_p50, row.refusal_p99, row.resident);
    std::fflush(stdout);
    rows.push_back(row);
  }
  double text_bytes = 0, id_bytes = 0;
  if (options.memory_jobs > 0) {
    text_bytes = bytes_per_queued_job(options, false);
    id_bytes = bytes_per_queued_job(options, true);
    std::printf("memory of a queued job: %.0f bytes with a prompt of 512 bytes, %.0f with 128 ids\n", text_bytes,
                id_bytes);
  }
  if (!options.json.empty()) write_json(options.json, rows, text_bytes, id_bytes);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ConfigParser parser("overload_bench",
                      "Measures the job queue under loads up to many times of what its worker can do.");
  parser.add("loads", options.loads, "Offered loads; 1 is as much as the worker can do").separated_by_commas();
  parser.add("seconds", options.seconds, "Length of each measurement");
  parser.add("warm-up", options.warm_up, "Seconds at the same load before each measurement");
  parser.add("memory-jobs", options.memory_jobs, "Jobs that are queued to measure memory; 0: do not measure it");
  parser.add("folder", options.folder, "Folder for the journal, on a local disk");
  parser.add("json", options.json, "Also write the figures to this file");
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  return run_benchmark("overload_bench", [&] { run(options); });
}
