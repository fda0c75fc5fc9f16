// What the HTTP gateway adds, beside the C++ client in the same run: a real scheduler with its journal, a worker of a
// known speed, and optserve-gateway as a process of its own. --json FILE writes the figures as JSON.
//   gateway_bench --gateway build/release/bin/optserve-gateway
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <deque>
#include <future>
#include <random>

#include "base/config.h"
#include "bench/bench_peers.h"
#include "bench/http_load.h"
#include "client/async_client.h"
#include "client/client.h"

namespace {

using namespace optserve;
using namespace optserve::bench;

struct Options {
  std::string gateway;
  std::string folder = std::filesystem::temp_directory_path().string();
  std::string json;
  int seconds = 5;
  int streams = 500;
  int idle = 2'000;
};

constexpr auto kStep = milliseconds(5);
constexpr size_t kSlots = 64;                             // sequences that get a token each step
constexpr int32_t kTokensOfLoad = 32;                     // of a job of the overload
constexpr double kPeak = kSlots / 0.005 / kTokensOfLoad;  // jobs/s
constexpr int64_t kPatienceMs = 2'000;

class SteadyWorker final : public TokenWorker {
 public:
  explicit SteadyWorker(size_t slots, int32_t leases) : TokenWorker(leases), slots_(slots) {}
  void on_flush(Instant now, Outbox& out) override {
    if (leases_.empty() || now < next_step_) return;
    next_step_ = std::max<Instant>(next_step_ + kStep, now - kStep);
    link_.set_load({++steps_, static_cast<int32_t>(leases_.size()), false});
    step(slots_, out, [](const Lease&, int64_t) {});
  }

 private:
  size_t slots_;
  Instant next_step_{};
  uint64_t steps_ = 0;
};

// The gateway's process. Its log goes through a pipe, from which its port is read.
class GatewayProcess {
 public:
  GatewayProcess(const std::string& program, const std::string& scheduler) {
    std::array<int, 2> log{};
    if (pipe2(log.data(), O_CLOEXEC) != 0) throw errno_error("pipe2");
    pid_ = fork();
    if (pid_ == 0) {
      dup2(log[1], STDERR_FILENO);
      execl(program.c_str(), program.c_str(), "--scheduler", scheduler.c_str(), "--http", "127.0.0.1:0", "--http-port",
            "0", "--log-level", "info", "--connections-max", "20000", nullptr);
      _exit(127);
    }
    close(log[1]);
    std::string text;
    std::array<char, 4096> buffer{};
    while (port_ == 0) {
      const ssize_t got = read(log[0], buffer.data(), buffer.size());
      if (got <= 0) throw Error("the gateway did not start:\n" + text);
      text.append(buffer.data(), static_cast<size_t>(got));
      const size_t at = text.find("api_port=");
      if (at != std::string::npos && text.find('\n', at) != std::string::npos) port_ = std::stoi(text.substr(at + 9));
    }
    drain_ = std::thread([fd = log[0]] {  // a full pipe would stop it
      std::array<char, 65'536> rest{};
      while (read(fd, rest.data(), rest.size()) > 0) {
      }
      close(fd);
    });
  }
  ~GatewayProcess() {
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
    drain_.join();
  }
  GatewayProcess(const GatewayProcess&) = delete;
  GatewayProcess& operator=(const GatewayProcess&) = delete;

  int port() const { return port_; }
  double resident_kib() const {
    std::ifstream statm("/proc/" + std::to_string(pid_) + "/statm");
    double total = 0, resident = 0;
    statm >> total >> resident;
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1024;
  }

 private:
  pid_t pid_ = 0;
  int port_ = 0;
  std::thread drain_;
};

struct System {
  System(const Options& options, size_t slots, int32_t leases)
      : scheduler({.folder = options.folder}),
        worker(slots, leases),
        tokenizer_thread(scheduler.connect(tokenizer, 1)),
        worker_thread(scheduler.connect(worker, 1)) {
    while (!tokenizer.registered || !worker.registered) std::this_thread::sleep_for(milliseconds(1));
    gateway = std::make_unique<GatewayProcess>(options.gateway, scheduler.endpoint(0));
    client::ClientOptions settings;
    settings.endpoints = scheduler.endpoint(0);
    client = std::make_unique<client::AsyncClient>(settings);
  }

  BenchScheduler scheduler;
  NullTokenizer tokenizer;
  SteadyWorker worker;
  std::unique_ptr<LoopThread> tokenizer_thread, worker_thread;
  std::unique_ptr<GatewayProcess> gateway;
  std::unique_ptr<client::AsyncClient> client;
};

std::string completion(int tokens) {
  return "{\"model\":\"opt\",\"prompt\":[100,100,100,100,100,100,100,100],\"max_tokens\":" + std::to_string(tokens) +
         "}";
}
protocol::JobSpec job(int tokens) {
  protocol::JobSpec spec = bench_spec(tokens);
  spec.prompt_ids.assign(8, 100);
  return spec;
}

// When the byte at each offset of a job's text arrived.
using Arrivals = std::vector<int64_t>;

void mark(Arrivals& arrivals, size_t end) {
  const int64_t now = now_ns();
  for (size_t at = std::min(end, arrivals.size()); at > 0 && arrivals[at - 1] == 0; --at) arrivals[at - 1] = now;
}

// 64 jobs whose tokens come every 5 ms, each followed by the C++ client and over HTTP at the same time.
void measure_tokens(const Options& options, std::vector<Figure>& figures) {
  constexpr size_t kJobs = 64, kTokens = 400;
  System parts(options, kSlots, kSlots);
  std::vector<Arrivals> by_client(kJobs, Arrivals(kTokens)), by_http(kJobs, Arrivals(kTokens));
  HttpLoad load(parts.gateway->port());
  std::vector<std::string> buffers(kJobs);
  std::atomic<size_t> ended{0};
  for (size_t i = 0; i < kJobs; ++i) {
    client::JobStream stream;
    stream.on_text = [&arrivals = by_client[i], at = size_t{0}](std::string_view piece, const auto&) mutable {
      mark(arrivals, at += piece.size());
    };
    stream.on_finished = [&ended](const auto&) { ++ended; };
    std::promise<std::string> id;
    parts.client->submit({job(kTokens)}, stream, [&id](const client::Submission& submission) {
      id.set_value(submission.outcomes.value().front().job->hex());
    });
    load.connect().stream("/v1/jobs/" + id.get_future().get() + "/events",
                          [&arrivals = by_http[i], &buffer = buffers[i]](std::string_view piece) {
                            buffer += piece;
                            const size_t at = buffer.rfind("\nid: ");
                            if (at == std::string::npos || buffer.find('\n', at + 1) == std::string::npos) return;
                            mark(arrivals, std::stoul(buffer.substr(at + 5)));
                            buffer.erase(0, at + 4);
                          });
  }
  const auto complete = [&] {
    return ended == kJobs && std::ranges::all_of(by_http, [](const Arrivals& one) { return one.back() != 0; });
  };
  while (!complete()) load.step(5);
  std::vector<int64_t> added;
  for (size_t i = 0; i < kJobs; ++i) {
    // The first tokens may have been there before the stream began.
    for (size_t at = 20; at < kTokens; ++at) added.push_back(by_http[i][at] - by_client[i][at]);
  }
  add_quantiles(figures, "a token, later over HTTP than by the C++ client, 64 streams", added);
}

// Jobs of one token one after the other, by the client and over HTTP by turns.
void measure_requests(const Options& options, std::vector<Figure>& figures) {
  System parts(options, kSlots, kSlots);
  client::ClientOptions settings;
  settings.endpoints = parts.scheduler.endpoint(0);
  client::Client client(settings);
  HttpLoad load(parts.gateway->port());
  HttpConnection& connection = load.connect();
  std::vector<int64_t> by_client, by_http;
  const int64_t until = now_ns() + options.seconds * 1'000'000'000LL;
  while (now_ns() < until) {
    int64_t begin = now_ns();
    if (!client.generate(job(1)).ok()) throw Error("a job failed");
    by_client.push_back(now_ns() - begin);
    begin = now_ns();
    bool is_done = false;
    connection.post("/v1/completions", completion(1), [&](const HttpConnection::Answer& answer) {
      if (answer.status != 200) throw Error("a completion failed: " + answer.body);
      is_done = true;
    });
    while (!is_done) load.step(100);
    by_http.push_back(now_ns() - begin);
  }
  add_quantiles(figures, "a job of one token by the C++ client", by_client);
  add_quantiles(figures, "a completion of one token over HTTP", by_http);
}

// Completions of one token from 64 connections, each of which sends the next one when its answer has arrived.
void measure_rate(const Options& options, std::vector<Figure>& figures) {
  System parts(options, 100'000, 1'000);
  HttpLoad load(parts.gateway->port());
  uint64_t answered = 0;
  std::function<void(HttpConnection&)> ask = [&](HttpConnection& connection) {
    connection.post("/v1/completions", completion(1), [&](const HttpConnection::Answer& answer) {
      if (answer.status != 200) throw Error("a completion failed: " + answer.body);
      ++answered;
      ask(connection);
    });
  };
  for (int i = 0; i < 64; ++i) ask(load.connect());
  const int64_t begin = now_ns();
  while (now_ns() < begin + options.seconds * 1'000'000'000LL) load.step(100);
  figures.push_back({"completions of one token, 64 connections", "1/s",
                     static_cast<double>(answered) / (static_cast<double>(now_ns() - begin) * 1e-9)});
}

// Idle connections, and streams of 200 tokens beside them.
void measure_memory(const Options& options, std::vector<Figure>& figures) {
  System parts(options, 100'000, options.streams);
  const double at_start = parts.gateway->resident_kib();
  HttpLoad load(parts.gateway->port());
  for (int i = 0; i < options.idle; ++i) load.connect();
  std::this_thread::sleep_for(seconds(1));
  const double with_idle = parts.gateway->resident_kib();
  figures.push_back({"memory of an idle connection, of " + std::to_string(options.idle), "KiB",
                     (with_idle - at_start) / options.idle});
  int done = 0;
  double most = with_idle;
  const std::string body = completion(400);
  for (int i = 0; i < options.streams; ++i) {
    auto buffer = std::make_shared<std::string>();
    HttpConnection& connection = load.connect();
    connection.post("/v1/completions", body.substr(0, body.size() - 1) + ",\"stream\":true}", {});
    connection.on_stream([&done, buffer](std::string_view piece) {
      *buffer = buffer->substr(buffer->size() - std::min<size_t>(buffer->size(), 32)) + std::string(piece);
      if (buffer->find("[DONE]") != std::string::npos) {
        ++done;
        buffer->clear();
      }
    });
  }
  const int64_t begin = now_ns();
  while (done < options.streams) {
    load.step(20);
    most = std::max(most, parts.gateway->resident_kib());
    if (now_ns() - begin > 120'000'000'000LL) throw Error("streams do not end");
  }
  const double elapsed = static_cast<double>(now_ns() - begin) * 1e-9;
  figures.push_back(
      {"memory of a stream, of " + std::to_string(options.streams), "KiB", (most - with_idle) / options.streams});
  figures.push_back(
      {"tokens of " + std::to_string(options.streams) + " streams", "1/s", 400.0 * options.streams / elapsed});
}

// Requests that arrive at random moments, whatever is answered, at `times` what the worker can do.
void measure_overload(const Options& options, double times, std::vector<Figure>& figures) {
  System parts(options, kSlots, kSlots + 16);
  HttpLoad load(parts.gateway->port());
  std::deque<HttpConnection*> idle;
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(times * kPeak);
  uint64_t good = 0, refused = 0, failed = 0, without_retry = 0;
  std::vector<int64_t> job_ns, refusal_ns;
  const int64_t begin = now_ns(), measured = begin + 3'000'000'000LL,
                end = measured + options.seconds * 1'000'000'000LL;
  const std::string fields = "x-stainless-read-timeout: " + std::to_string(kPatienceMs / 1'000) + "\r\n";
  int64_t next = begin;
  while (now_ns() < end) {
    for (; next <= now_ns(); next += static_cast<int64_t>(gap(random) * 1e9)) {
      if (idle.empty()) idle.push_back(&load.connect());
      HttpConnection* connection = idle.back();
      idle.pop_back();
      connection->post(
          "/v1/completions", completion(kTokensOfLoad),
          [&, connection, began = next](const HttpConnection::Answer& answer) {
            idle.push_back(connection);
            const int64_t now = now_ns();
            if (now < measured) return;
            if (answer.status == 200) {
              ++(now - began < kPatienceMs * 1'000'000 ? good : failed);
              job_ns.push_back(now - began);
            } else if (answer.status == 429) {
              ++refused;
              refusal_ns.push_back(now - began);
              const size_t at = answer.head.find("Retry-After: ");
              const int after = at == std::string::npos ? 0 : std::stoi(answer.head.substr(at + 13));
              without_retry += after < 1 || after > 60;
            } else {
              ++failed;
            }
          },
          fields);
    }
    load.step(1);
  }
  const auto per_second = [&](uint64_t count) { return static_cast<double>(count) / options.seconds; };
  char name[64];
  std::snprintf(name, sizeof name, "at %g times the worker's %.0f jobs/s: ", times, kPeak);
  figures.push_back({std::string(name) + "answered in time", "1/s", per_second(good)});
  figures.push_back({std::string(name) + "refused with 429", "1/s", per_second(refused)});
  figures.push_back({std::string(name) + "other errors, or too late", "1/s", per_second(failed)});
  figures.push_back(
      {std::string(name) + "refusals without a Retry-After of 1 to 60 s", "1/s", per_second(without_retry)});
  add_quantiles(figures, std::string(name) + "an answer", job_ns);
  add_quantiles(figures, std::string(name) + "a refusal", refusal_ns);
  figures.push_back({std::string(name) + "connections", "", static_cast<double>(load.size())});
}

void run(const Options& options) {
  const rlimit files{65'536, 65'536};
  setrlimit(RLIMIT_NOFILE, &files);
  std::vector<Figure> figures;
  measure_tokens(options, figures);
  measure_requests(options, figures);
  measure_rate(options, figures);
  measure_memory(options, figures);
  for (const double times : {0.9, 2.0, 10.0}) measure_overload(options, times, figures);
  for (const Figure& figure : figures) {
    std::printf("%-90s %10.3f %s\n", figure.name.c_str(), figure.value, figure.unit.c_str());
  }
  if (!options.json.empty()) write_json(options.json, figures);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ConfigParser parser("gateway_bench", "Measures what the HTTP gateway adds.");
  parser.add("gateway", options.gateway, "The program optserve-gateway");
  parser.add("seconds", options.seconds, "Length of each measurement");
  parser.add("streams", options.streams, "Concurrent streams");
  parser.add("idle", options.idle, "Idle connections");
  parser.add("folder", options.folder, "Folder for the journal, on a local disk");
  parser.add("json", options.json, "Also write the figures to this file");
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  return run_benchmark("gateway_bench", [&] { run(options); });
}
