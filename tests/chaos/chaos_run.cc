#include "chaos_run.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <thread>

#include "base/error.h"
#include "checks.h"
#include "client/client.h"
#include "job_plan.h"
#include "report.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"

namespace optserve::chaos {
namespace {

using client::Client;
using std::chrono::milliseconds;

constexpr int64_t kReadyLimitMs = 120'000;
constexpr size_t kSmallDiskBytes = 256 << 20;
// How much more memory the scheduler may use than before the faults, for results that it keeps and for its allocator.
constexpr int64_t kMoreRssKb = 128 << 10;
constexpr int kMoreDescriptors = 16;

class ChaosRun {
 public:
  ChaosRun(const RunOptions& options, const std::string& folder, Network* network, bool small_disk);
  Report run();

 private:
  TopologyOptions topology_options(const std::string& folder) const;
  NemesisOptions nemesis_options(bool small_disk) const;
  bool wait_ready(int64_t limit_ms);
  bool is_ready();
  void compute_references();
  void break_things();
  void settle();
  void ask_for_all_jobs();
  void fill_report();
  void violate(const std::string& what) { report_.violations.push_back(what); }
  std::unique_ptr<Client> connect() const;

  RunOptions options_;
  std::string folder_;
  TcpProxy proxy_;
  Topology topology_;
  Network* network_;
  bool small_disk_;
  std::unique_ptr<Client> client_;
  std::vector<FaultRecord> records_;
  Evidence evidence_;
  Report report_;
  int64_t load_from_ms_ = 0, load_to_ms_ = 0;
};

ChaosRun::ChaosRun(const RunOptions& options, const std::string& folder, Network* network, bool small_disk)
    : options_(options),
      folder_(folder),
      topology_(topology_options(folder), network, proxy_),
      network_(network),
      small_disk_(small_disk) {
  evidence_.seed = report_.seed = options.seed;
  report_.load = options.load;
  report_.seconds = options.seconds;
  client_ = connect();
}

TopologyOptions ChaosRun::topology_options(const std::string& folder) const {
  TopologyOptions topology;
  topology.folder = folder;
  topology.seed = options_.seed;
  topology.clients = options_.clients;
  topology.load = options_.load;
  topology.preload = !test_support::kSanitized;  // the runtime of a sanitizer must be loaded first
  topology.began_ms = now_ms();
  return topology;
}

NemesisOptions ChaosRun::nemesis_options(bool small_disk) const {
  NemesisOptions nemesis;
  nemesis.seed = options_.seed;
  nemesis.faults = options_.faults.empty() ? fault_names() : options_.faults;
  nemesis.every_ms = options_.every_ms;
  nemesis.pause_max_ms = std::clamp<int64_t>(options_.seconds * 1'000 / 4, 2'000, 30'000);
  nemesis.small_disk = small_disk;
  nemesis.lose_journal = options_.sabotage;
  return nemesis;
}

std::unique_ptr<Client> ChaosRun::connect() const {
  client::ClientOptions options;
  const TcpAddress address = topology_.client_address();
  options.endpoints = "tcp://" + address.host + ":" + std::to_string(address.port);
  options.timeout = milliseconds(5'000);
  options.insecure = true;  // the faults are those of processes and networks; its garbage comes from peers without keys
  return std::make_unique<Client>(options);
}

bool ChaosRun::is_ready() {
  const auto status = client_->status().at(0).answer;
  if (!status.ok()) return false;
  int workers = 0, tokenizers = 0;
  for (const protocol::ServiceStatus& service : status.value().services) {
    if (service.silent_ms > 3'000) continue;
    workers += service.kind == "worker";
    tokenizers += service.kind == "tokenizer";
  }
  return workers == topology_.options().groups && tokenizers == topology_.options().tokenizers;
}

bool ChaosRun::wait_ready(int64_t limit_ms) {
  const int64_t until = now_ms() + limit_ms;
  while (!is_ready()) {
    topology_.poll();
    if (now_ms() > until) return false;
    std::this_thread::sleep_for(milliseconds(50));
  }
  return true;
}

void ChaosRun::compute_references() {
  for (size_t variant = 0; variant < kVariants; ++variant) {
    const auto result = client_->generate(variant_spec(variant));
    if (!result.ok()) throw Error("no reference: " + result.refusal().message);
    evidence_.references.push_back(result.value().text);
  }
}

void ChaosRun::break_things() {
  Nemesis nemesis(nemesis_options(small_disk_), topology_, network_, proxy_);
  for (const std::string& skipped : nemesis.skipped()) std::cout << "skipped: " << skipped << "\n";
  report_.skipped = nemesis.skipped();
  topology_.start(Role::kClient);
  load_from_ms_ = now_ms();
  load_to_ms_ = load_from_ms_ + options_.seconds * 1'000;
  while (now_ms() < load_to_ms_) {
    topology_.poll();
    nemesis.turn();
    std::this_thread::sleep_for(milliseconds(10));
  }
  nemesis.heal();
  records_ = nemesis.records();
}

// Waits until the system has recovered by itself and every job has ended.
void ChaosRun::settle() {
  const int64_t healed_ms = now_ms();
  std::cout << "healed; waiting for every process and every job" << std::endl;
  if (!wait_ready(kReadyLimitMs)) violate("not every process registered again");
  report_.ready_ms = now_ms() - healed_ms;
  if (!topology_.finish_clients()) violate("a client's jobs did not all end");
  const int64_t until = now_ms() + 40'000;  // for the jobs of rogue peers as well
  auto status = client_->status().at(0).answer;
  while ((!status.ok() || status.value().queued + status.value().running > 0) && now_ms() < until) {
    std::this_thread::sleep_for(milliseconds(100));
    status = client_->status().at(0).answer;
  }
  if (!status.ok()) return violate("no status: " + status.refusal().message);
  const protocol::SystemStatus& last = status.value();
  if (last.queued + last.running > 0) violate(std::to_string(last.queued + last.running) + " jobs are left over");
}

void ChaosRun::ask_for_all_jobs() {
  report_.after = usage_of(topology_.scheduler().process->pid());
  // After a restart the answers come from the disk and not from memory.
  topology_.terminate(topology_.scheduler(), 0);
  if (!wait_ready(kReadyLimitMs)) violate("not every process registered after the restart");
  for (const Ledger& ledger : evidence_.ledgers) {
    for (const auto& [number, story] : ledger) {
      if (story.ids.empty()) continue;
      const auto result = client_->get(*JobId::from_hex(story.ids.front()));
      Answer& answer = evidence_.answers[story.ids.front()];
      answer.found = result.ok();
      if (!result.ok()) {
        answer.why_not = result.refusal().message;
        continue;
      }
      answer.state = protocol::job_state_name(result.value().state);
      answer.text = result.value().text;
      answer.attempts = result.value().attempts;
    }
  }
}

void ChaosRun::fill_report() {
  const std::vector<Ledger>& ledgers = evidence_.ledgers;
  report_.network = network_ != nullptr ? "network namespaces and proxies" : "loopback and proxies";
  report_.jobs = count_jobs(ledgers);
  for (const FaultRecord& record : records_) ++report_.faults[record.fault];
  report_.recovery = recovery_times(ledgers, records_);
  report_.retried = silence_of_retried(ledgers, records_);
  report_.silence_ms = longest_silence_ms(ledgers, load_from_ms_, load_to_ms_);
  for (const std::string& violation : check_jobs(evidence_)) violate(violation);
  for (const std::string& surprise : topology_.surprises()) violate(surprise);
  if (report_.jobs.finals["succeeded"] == 0) violate("no job succeeded");
  const Usage &before = report_.before, &after = report_.after;
  if (after.threads > before.threads) violate("the scheduler has more threads than before");
  if (after.descriptors > before.descriptors + kMoreDescriptors) violate("the scheduler leaks descriptors");
  if (after.rss_kb > before.rss_kb + kMoreRssKb && !test_support::kSanitized) violate("the scheduler leaks memory");
}

Report ChaosRun::run() {
  topology_.start(Role::kScheduler);
  topology_.start(Role::kTokenizer);
  topology_.start(Role::kWorker);
  if (!wait_ready(kReadyLimitMs)) throw Error("the system does not start");
  compute_references();
  report_.before = usage_of(topology_.scheduler().process->pid());
  break_things();
  settle();
  for (int i = 0; i < options_.clients; ++i) evidence_.ledgers.push_back(read_ledger(topology_.ledger(i)));
  ask_for_all_jobs();
  client_.reset();
  topology_.shut_down();
  for (const std::string& orphan : processes_naming(folder_)) violate("is still there: " + orphan);
  fill_report();
  return report_;
}

void write_reports(const Report& report, const std::string& path) {
  std::cout << "\n" << report_text(report) << std::flush;
  if (path.empty()) return;
  std::ofstream(path) << report_json(report);
  std::ofstream(path + ".txt") << report_text(report);
}

void print_logs(const std::string& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".log") continue;
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    std::cout << "--- " << entry.path().filename().string() << "\n"
              << text.substr(text.size() - std::min<size_t>(text.size(), 3000)) << "\n";
  }
}

}  // namespace

int run_chaos(const RunOptions& options) {
  const test_support::TemporaryFolder temporary;
  const std::string folder = options.folder.empty() ? temporary.path() : options.folder;
  const std::string journal = folder + "/journal";
  std::filesystem::create_directories(journal);
  std::cout << "seed " << options.seed << std::endl;
  std::string why_not = "not wanted";
  const auto network = options.namespaces ? Network::create(folder + "/network.log", why_not) : nullptr;
  if (!network) std::cout << "skipped: faults of the network: " << why_not << std::endl;
  const bool small_disk = network && mount_small_disk(journal, kSmallDiskBytes);
  const Report report = ChaosRun(options, folder, network.get(), small_disk).run();
  write_reports(report, options.report);
  if (small_disk) unmount(journal);
  if (options.sabotage) {
    const bool found = std::any_of(report.violations.begin(), report.violations.end(),
                                   [](const std::string& v) { return v.find("lost") != std::string::npos; });
    std::cout << (found ? "the sabotage was found\n" : "the sabotage was NOT found\n");
    return found ? 0 : 1;
  }
  if (!report.violations.empty() && options.folder.empty()) print_logs(folder);
  return report.violations.empty() ? 0 : 1;
}

}  // namespace optserve::chaos
