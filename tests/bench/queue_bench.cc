// The job queue under load: the real scheduler, journal and sockets over loopback. Tokenizer, workers and client do
// only what the protocol asks of them. Prints a table; --json FILE writes the same as JSON.
//   queue_bench --seconds 5 --folder /var/tmp
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/config.h"
#include "bench/bench_peers.h"
#include "bench/queue_parts.h"

namespace {

using namespace optserve;
using namespace optserve::bench;

struct Options {
  int seconds = 4;
  std::string folder = std::filesystem::temp_directory_path().string();
  std::string json;
  std::string part = "all";
  std::string transport = "tcp";
  bool keys = false;
  int64_t recovery_jobs = 1'000'000;
  int64_t deep_jobs = 100'000;
};

// When each token left its worker, by job and position.
struct Stamps {
  Stamps(size_t jobs, size_t positions) : width(positions), at(jobs * positions) {}
  size_t width;
  std::vector<std::atomic<int64_t>> at;
};

// What worker and client share without the network.
struct Flow {
  std::atomic<int64_t> sent{0}, delivered{0}, pieces{0};
  int64_t window = 0;  // most tokens under way; 0: steps are paced by `step_every` instead
  Duration step_every{};
  std::atomic<bool> measuring{false};  // latencies count while it is true
  Stamps* stamps = nullptr;
};

// Gives every sequence one token a step.
class NullWorker final : public TokenWorker {
 public:
  NullWorker(int32_t sequences, Flow& flow) : TokenWorker(sequences), flow_(flow) {}
  void on_flush(Instant now, Outbox& out) override {
    if (leases_.empty()) return;
    if (flow_.window == 0) {
      if (now < next_step_) return;
      next_step_ = std::max(next_step_ + flow_.step_every, now - flow_.step_every);
    } else if (flow_.sent - flow_.delivered > flow_.window) {
      return;
    }
    const size_t sent = step(leases_.size(), out, [this](const Lease& lease, int64_t stamp) {
      if (flow_.stamps != nullptr) flow_.stamps->at[lease.job * flow_.stamps->width + lease.position] = stamp;
    });
    flow_.sent += static_cast<int64_t>(sent);
  }

 private:
  Flow& flow_;
  Instant next_step_{};
};

// Keeps `outstanding` Submits of `batch` jobs each under way, follows the jobs if `stream`, and measures.
class BenchClient final : public BenchPeer {
 public:
  BenchClient(size_t batch, size_t outstanding, size_t jobs_max, protocol::JobSpec spec, bool stream, Flow* flow)
      : batch_(batch),
        outstanding_(outstanding),
        jobs_max_(jobs_max),
        spec_(std::move(spec)),
        stream_(stream),
        flow_(flow) {}
  // What is sent before there is a connection is sent again with the next tick.
  void on_undeliverable(const Peer&, Message message, bool, Instant, Outbox&) override {
    unsent_.push_back(std::move(message));
  }
  void on_tick(Instant, Outbox& out) override {
    for (Message& message : std::exchange(unsent_, {})) out.send({0, {}}, std::move(message));
  }
  void on_flush(Instant, Outbox& out) override {
    for (; under_way_ < outstanding_ && submitted_ + batch_ <= jobs_max_ && !paused; ++under_way_) {
      protocol::Submit submit;
      submit.request = submitted_;
      submit.stream = stream_;
      for (size_t i = 0; i < batch_; ++i) {
        spec_.key = "job-" + std::to_string(submitted_);
        spec_.sampling.seed = submitted_++;
        submit.jobs.push_back(spec_);
      }
      out.send({0, {}}, std::move(submit));
    }
  }
  void on_message(const Peer&, Message message, Instant, Outbox&) override {
    if (const auto* reply = std::get_if<protocol::SubmitReply>(&message)) {
      --under_way_;
      for (size_t i = 0; i < reply->outcomes.size(); ++i) {
        if (!reply->outcomes[i].job) {
          ++refused;
          continue;
        }
        ++accepted;
        if (stream_) index_[*reply->outcomes[i].job] = reply->request + i;
      }
    } else if (const auto* events = std::get_if<protocol::JobEvents>(&message)) {
      on_events(*events);
    } else if (std::holds_alternative<protocol::JobFinished>(message)) {
      ++finished;
    }
  }
  std::atomic<uint64_t> accepted{0}, refused{0}, finished{0};
  std::atomic<bool> paused{false};
  std::vector<int64_t> latencies_ns;  // read after the thread has stopped

 private:
  void on_events(const protocol::JobEvents& events) {
    const int64_t now = now_ns();
    int64_t count = 0;
    for (const protocol::JobEvent& event : events.events) {
      count += static_cast<int64_t>(event.text.size());
      if (flow_ == nullptr || flow_->stamps == nullptr || !flow_->measuring) continue;
      const size_t job = index_.at(event.job);
      for (size_t i = 0; i < event.text.size(); ++i) {
        latencies_ns.push_back(now - flow_->stamps->at[job * flow_->stamps->width + event.text_offset + i]);
      }
    }
    if (flow_ == nullptr) return;
    flow_->delivered += count;
    flow_->pieces += static_cast<int64_t>(events.events.size());
  }

  const size_t batch_, outstanding_, jobs_max_;
  protocol::JobSpec spec_;
  const bool stream_;
  Flow* flow_;
  size_t submitted_ = 0, under_way_ = 0;
  std::vector<Message> unsent_;
  std::unordered_map<JobId, size_t> index_;
};

// Asks until it is answered.
class Caller final : public BenchPeer {
 public:
  void on_message(const Peer&, Message, Instant, Outbox&) override { answered = true; }
  void on_tick(Instant, Outbox& out) override { out.send({0, {}}, protocol::Ping{1}); }
  bool answered = false;
};

Figure measure_accepts(const Options& options, bool durable, size_t batch, size_t outstanding) {
  BenchScheduler scheduler(
      {.folder = options.folder, .transport = options.transport, .durable = durable, .has_keys = options.keys});
  BenchClient client(batch, outstanding, SIZE_MAX / 2, bench_spec(16), false, nullptr);
  const auto thread = scheduler.connect(client, 0);
  while (client.accepted == 0) std::this_thread::sleep_for(milliseconds(1));
  std::this_thread::sleep_for(milliseconds(200));
  const int64_t start = now_ns();
  const uint64_t before = client.accepted;
  std::this_thread::sleep_for(seconds(options.seconds));
  const uint64_t accepted = client.accepted - before;
  const double elapsed = static_cast<double>(now_ns() - start) * 1e-9;
  return {std::string(durable ? "durable" : "volatile") + " accepts, " + std::to_string(batch) + " a submit, " +
              std::to_string(outstanding) + " submits under way",
          "jobs/s", static_cast<double>(accepted) / elapsed};
}

std::vector<Figure> measure_tokens(const Options& options, int32_t sequences, Flow& flow, size_t jobs, int32_t length,
                                   const std::string& name) {
  BenchScheduler scheduler({.folder = options.folder, .transport = options.transport, .has_keys = options.keys});
  NullTokenizer tokenizer;
  NullWorker worker(sequences, flow);
  BenchClient client(std::min<size_t>(jobs, 64), 2, jobs, bench_spec(length), true, &flow);
  const auto tokenizer_thread = scheduler.connect(tokenizer, 1);
  const auto worker_thread = scheduler.connect(worker, 1);
  while (!tokenizer.registered || !worker.registered) std::this_thread::sleep_for(milliseconds(1));
  const auto client_thread = scheduler.connect(client, 0);
  while (flow.delivered == 0) std::this_thread::sleep_for(milliseconds(1));
  // With paced steps, the measurement begins after the last Submit, so that it does not measure Submits as well.
  while (flow.window == 0 && client.accepted < jobs) std::this_thread::sleep_for(milliseconds(1));
  std::this_thread::sleep_for(milliseconds(300));
  flow.measuring = true;
  const int64_t start = now_ns();
  const int64_t before = flow.delivered, pieces_before = flow.pieces;
  std::this_thread::sleep_for(seconds(options.seconds));
  const double elapsed = static_cast<double>(now_ns() - start) * 1e-9;
  const double rate = static_cast<double>(flow.delivered - before) / elapsed;
  const double pieces = static_cast<double>(flow.pieces - pieces_before) / elapsed;
  client_thread->stop();
  std::vector<Figure> figures = {{name, "tokens/s", rate}, {name + ": pieces of text", "pieces/s", pieces}};
  add_quantiles(figures, name + ": added latency", client.latencies_ns);
  return figures;
}

// Clients come one after the other, each with a connection of its own, until the first answer.
Figure measure_connections(const Options& options) {
  BenchScheduler scheduler({.folder = options.folder, .durable = false, .has_keys = options.keys});
  const SystemClock clock;
  const int64_t start = now_ns(), end = start + int64_t{options.seconds} * 1'000'000'000;
  size_t connections = 0;
  for (; now_ns() < end; ++connections) {
    Caller caller;
    metrics::Registry registry;
    transport::ServiceLoop loop(caller, clock, registry);
    scheduler.dial(loop, 0);
    while (!caller.answered) loop.turn(milliseconds(1));
  }
  return {"connections one after the other, to the first answer", "connections/s",
          static_cast<double>(connections) / (static_cast<double>(now_ns() - start) * 1e-9)};
}

std::vector<Figure> measure_all(const Options& options) {
  std::vector<Figure> figures;
  const auto report = [&](Figure figure) {
    if (options.keys) figure.name += ", with keys";
    std::printf("%-64s %12.3f %s\n", figure.name.c_str(), figure.value, figure.unit.c_str());
    std::fflush(stdout);
    figures.push_back(figure);
  };
  const auto wanted = [&](const char* part) { return options.part == "all" || options.part == part; };
  for (const bool durable : {true, false}) {
    if (!wanted("accepts")) break;
    report(measure_accepts(options, durable, 1, 1));
    report(measure_accepts(options, durable, 1, 64));
    report(measure_accepts(options, durable, 64, 4));
    report(measure_accepts(options, durable, 256, 4));
  }
  if (wanted("connections")) report(measure_connections(options));
  for (const size_t batch : {1, 16, 64, 256}) {
    if (wanted("journal")) report(measure_commits(options.folder, batch, options.seconds));
  }
  if (wanted("recovery")) {
    for (const Figure& f : measure_recovery(options.folder, static_cast<size_t>(options.recovery_jobs))) report(f);
  }
  if (wanted("deep")) {
    for (const Figure& f : measure_deep_queue(options.folder, static_cast<size_t>(options.deep_jobs))) report(f);
  }
  if (wanted("tokens")) {
    Flow flow;
    flow.window = 20'000;
    for (const Figure& f : measure_tokens(options, 512, flow, 60'000, 1'500, "token events, 512 sequences")) report(f);
  }
  if (wanted("relay")) {
    for (const Figure& f : measure_relay(options.transport, options.seconds)) report(f);
  }
  for (const auto& [sequences, step_us] : {std::pair{32, 10'000}, {64, 10'000}, {256, 20'000}}) {
    if (!wanted("latency")) break;
    const size_t jobs = 16 * 64;  // more than can end during the measurement
    Stamps stamps(jobs, 1'500);
    Flow flow;
    flow.step_every = microseconds(step_us);
    flow.stamps = &stamps;
    const std::string name =
        std::to_string(sequences) + " sequences, a step each " + std::to_string(step_us / 1000) + " ms";
    for (const Figure& f : measure_tokens(options, sequences, flow, jobs, 1'500, name)) report(f);
  }
  return figures;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  bool compare_keys = false;
  ConfigParser parser("queue_bench", "Rates and latencies of the job queue on this machine.");
  parser.add("seconds", options.seconds, "Length of each measurement");
  parser.add("folder", options.folder, "Folder for the journal, on a local disk, or the URL of a PostgreSQL database");
  parser.add(
      "part", options.part,
      "What to measure: accepts, connections, journal, recovery, deep (many waiting jobs), tokens, latency, relay "
      "(bare hops) or all");
  parser.add("keys", options.keys, "All connections have keys, so they are encrypted and each message is checked");
  parser.add("compare-keys", compare_keys, "Each part without keys and with keys, in turns");
  parser.add("recovery-jobs", options.recovery_jobs, "Open jobs that the measured start finds");
  parser.add("deep-jobs", options.deep_jobs, "Jobs that wait in the part deep");
  parser.add("transport", options.transport, "tcp or ipc");
  parser.add("json", options.json, "Also write the figures to this file");
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  return run_benchmark("queue_bench", [&] {
    std::vector<Figure> figures;
    const std::string part = options.part;
    for (const char* each : {"accepts", "connections", "tokens", "latency"}) {
      if (!compare_keys || (part != "all" && part != each)) continue;
      options.part = each;
      for (const bool keys : {false, true}) {
        options.keys = keys;
        const auto more = measure_all(options);
        figures.insert(figures.end(), more.begin(), more.end());
      }
    }
    if (!compare_keys) figures = measure_all(options);
    if (!options.json.empty()) write_json(options.json, figures);
  });
}
