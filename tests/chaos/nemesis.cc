#include "nemesis.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <thread>

#include "cli/stack/process_identity.h"
#include "journal/journal.h"
#include "journal/journal_files.h"
#include "ledger.h"
#include "support/proc_files.h"

namespace optserve::chaos {
namespace {

constexpr int64_t kRestartMaxMs = 1'500;
constexpr int64_t kShortPauseMaxMs = 10'000;
constexpr const char* kNoNetwork = "no network namespaces";
constexpr const char* kNoPreload = "no preload library in this build";

}  // namespace

const std::vector<std::string>& fault_names() {
  static const std::vector<std::string> names = {
      "kill-scheduler", "kill-tokenizer", "kill-supervisor", "kill-rank",   "kill-client",
      "stop-scheduler", "stop-tokenizer", "stop-supervisor", "stop-rank",   "stop-client",
      "term-scheduler", "term-tokenizer", "term-worker",     "link-down",   "one-way-from",
      "one-way-to",     "proxy-cut",      "proxy-delay",     "proxy-stall", "proxy-half-close",
      "proxy-swallow",  "slow-disk",      "clock-jump",      "disk-full",   "garbage",
      "flood",          "deaf-reader",    "restore"};
  return names;
}

Nemesis::Nemesis(const NemesisOptions& options, Topology& topology, Network* network, TcpProxy& proxy)
    : options_(options), topology_(topology), network_(network), proxy_(proxy), random_(options.seed) {
  add_process_faults();
  add_network_faults();
  add_disk_and_clock_faults();
  add_peer_faults();
  next_ms_ = now_ms() + options_.every_ms;
}

void Nemesis::add(const std::string& name, std::function<bool()> inject, const std::string& why_not) {
  if (std::find(options_.faults.begin(), options_.faults.end(), name) == options_.faults.end()) return;
  if (!why_not.empty()) {
    skipped_.push_back(name + ": " + why_not);
  } else {
    faults_.push_back({name, std::move(inject)});
  }
}

void Nemesis::add_process_faults() {
  add("kill-scheduler", [this] { return kill(Role::kScheduler); });
  add("kill-tokenizer", [this] { return kill(Role::kTokenizer); });
  add("kill-supervisor", [this] { return kill(Role::kWorker); });
  add("kill-client", [this] { return kill(Role::kClient); });
  add("kill-rank", [this] { return kill_rank(); });
  add("stop-scheduler", [this] { return freeze(Role::kScheduler); });
  add("stop-tokenizer", [this] { return freeze(Role::kTokenizer); });
  add("stop-supervisor", [this] { return freeze(Role::kWorker); });
  add("stop-client", [this] { return freeze(Role::kClient); });
  add("stop-rank", [this] { return freeze_rank(); });
  add("term-scheduler", [this] { return terminate(Role::kScheduler); });
  add("term-tokenizer", [this] { return terminate(Role::kTokenizer); });
  add("term-worker", [this] { return terminate(Role::kWorker); });
  add("restore", [this] { return restore(); });
}

void Nemesis::add_network_faults() {
  const std::string why_not = network_ == nullptr ? kNoNetwork : "";
  const auto anybody = [](const Member&) { return true; };
  add(
      "link-down",
      [=, this] {
        return break_link(pick_any(anybody), [this](int node, bool broken) { network_->set_link(node, !broken); });
      },
      why_not);
  add(
      "one-way-from",
      [=, this] {
        return break_link(pick_any(anybody),
                          [this](int node, bool broken) { network_->set_blocked(node, Direction::kUp, broken); });
      },
      why_not);
  add(
      "one-way-to",
      [=, this] {
        return break_link(pick_any(anybody),
                          [this](int node, bool broken) { network_->set_blocked(node, Direction::kDown, broken); });
      },
      why_not);
  const auto is_proxied = [](const Member& member) { return member.link >= 0; };
  add("proxy-cut", [=, this] {
    Member* member = pick_any(is_proxied);
    if (member == nullptr) return false;
    proxy_.cut(member->link);
    return record(member->name, 0);
  });
  add("proxy-half-close", [=, this] {
    Member* member = pick_any(is_proxied);
    if (member == nullptr) return false;
    proxy_.half_close(member->link, random_() % 2 == 0 ? Direction::kUp : Direction::kDown);
    return record(member->name, 0);
  });
  add("proxy-delay", [this] { return bend_proxy({between(20, 1'000), false, false, false}); });
  add("proxy-stall", [this] {
    const uint64_t which = random_() % 3;
    return bend_proxy({0, which != 0, which != 1, false});
  });
  add("proxy-swallow", [this] { return bend_proxy({0, true, true, true}); });
}

void Nemesis::add_disk_and_clock_faults() {
  const std::string why_not = topology_.options().preload ? "" : kNoPreload;
  add(
      "slow-disk",
      [this] {
        Member* member = pick(Role::kScheduler);
        if (member == nullptr) return false;
        member->shim->sync_delay_us.store(between(20, 1'000) * 1'000);
        return record(member->name, std::min(pause(), kShortPauseMaxMs),
                      [member] { member->shim->sync_delay_us.store(0); });
      },
      why_not);
  // Half of the steps stay, as a correction does; the others are taken back after a while. All but the smallest are
  // longer than results are kept, and none may lose a job.
  add(
      "clock-jump",
      [this] {
        Member* member = pick_any([](const Member& each) { return each.shim != nullptr; });
        if (member == nullptr) return false;
        static constexpr int64_t kSecondsOfSteps[] = {1, 2 * 3'600, 10 * 24 * 3'600};
        const int64_t step_ms = 1'000 * kSecondsOfSteps[random_() % std::size(kSecondsOfSteps)];
        member->shim->clock_offset_ms.fetch_add(random_() % 2 == 0 ? step_ms : -step_ms);
        if (random_() % 2 == 0) return record(member->name, 0);
        return record(member->name, pause(), [member] { member->shim->clock_offset_ms.store(0); });
      },
      why_not);
  add(
      "disk-full", [this] { return fill_disk(); }, options_.small_disk ? "" : "no file system of its own");
}

void Nemesis::add_peer_faults() {
  const auto address = [this] { return random_() % 2 == 0 ? topology_.client_address() : topology_.service_address(); };
  add("garbage", [=, this] {
    const auto kind = static_cast<Garbage>(random_() % kGarbageKinds);
    const int64_t lasts = between(200, 3'000);
    rogues_.send_garbage(address(), kind, random_(), lasts);
    return record("kind " + std::to_string(static_cast<int>(kind)), lasts);
  });
  add("flood", [=, this] {
    const int64_t lasts = between(1'000, 10'000);
    rogues_.flood(address(), 300, lasts);
    return record("300 connections", lasts);
  });
  add("deaf-reader", [this] {
    const int64_t lasts = between(1'000, 10'000);
    rogues_.submit_and_never_read(topology_.client_address(), random_(), lasts);
    return record("20 jobs", lasts);
  });
}

int64_t Nemesis::between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_);
}

// Mostly short times, and sometimes the longest time that is allowed.
int64_t Nemesis::pause() {
  const int64_t longest = random_() % 3 == 0 ? options_.pause_max_ms : std::min(options_.pause_max_ms, int64_t{6'000});
  return between(1'000, longest);
}

Member* Nemesis::pick_any(const std::function<bool(const Member&)>& fits) {
  std::vector<Member*> candidates;
  for (const Role role : {Role::kScheduler, Role::kTokenizer, Role::kWorker, Role::kClient}) {
    for (Member* member : topology_.members(role)) {
      if (member->is_up() && member->left_alone_from_ms <= now_ms() && fits(*member)) candidates.push_back(member);
    }
  }
  return candidates.empty() ? nullptr : candidates[random_() % candidates.size()];
}

Member* Nemesis::pick(Role role) {
  return pick_any([role](const Member& member) { return member.role == role; });
}

bool Nemesis::record(const std::string& target, int64_t lasts_ms, std::function<void()> undo) {
  records_.push_back({injecting_, target, now_ms(), lasts_ms});
  if (undo) undos_.push_back({now_ms() + lasts_ms, std::move(undo)});
  for (const Role role : {Role::kScheduler, Role::kTokenizer, Role::kWorker, Role::kClient}) {
    for (Member* member : topology_.members(role)) {
      if (member->name == target) member->left_alone_from_ms = now_ms() + lasts_ms + 500;
    }
  }
  return true;
}

bool Nemesis::kill(Role role) {
  Member* member = pick(role);
  if (member == nullptr) return false;
  topology_.kill(*member, between(0, kRestartMaxMs));
  if (options_.lose_journal && role == Role::kScheduler) {
    options_.lose_journal = false;
    for (const auto& file : std::filesystem::directory_iterator(topology_.journal_folder())) {
      std::filesystem::remove(file.path());
    }
  }
  return record(member->name, 0);
}

bool Nemesis::kill_rank() {
  Member* member = pick(Role::kWorker);
  const std::vector<pid_t> ranks =
      member == nullptr ? std::vector<pid_t>() : test_support::children_of(member->process->pid());
  if (ranks.empty()) return false;
  ::kill(ranks[random_() % ranks.size()], SIGKILL);
  return record(member->name, 0);
}

bool Nemesis::terminate(Role role) {
  Member* member = pick(role);
  if (member == nullptr) return false;
  topology_.terminate(*member, 0);
  return record(member->name, 0);
}

// The scheduler stops in an orderly way and starts from a copy of its journal, which replaces the journal: nothing may
// be missing.
bool Nemesis::restore() {
  Member* member = pick(Role::kScheduler);
  if (member == nullptr) return false;
  topology_.terminate(*member, 0);
  const std::string journal = topology_.journal_folder() + "/journal.db";
  member->before_start = [journal, copy = topology_.options().folder + "/journal-copy.db"] {
    for (const char* part : {"", "-wal"}) {
      journal::remove_file(copy + part);
      if (journal::file_bytes(journal + part) > 0) journal::copy_file(journal + part, copy + part);
    }
    try {
      journal::restore_journal(copy, journal, true);
    } catch (const Error& error) {  // the journal is in its place still
      std::printf("restore: %s\n", error.what());
    }
    for (const char* part : {"", "-wal"}) journal::remove_file(journal + ".replaced" + part);
  };
  return record(member->name, 0);
}

bool Nemesis::freeze_process(pid_t pid, const std::string& target) {
  const auto identity = cli::identify_process(pid);
  if (!identity) return false;
  ::kill(pid, SIGSTOP);
  return record(target, pause(), [identity] {
    if (cli::is_alive(*identity)) ::kill(identity->pid, SIGCONT);
  });
}

bool Nemesis::freeze(Role role) {
  Member* member = pick(role);
  return member != nullptr && freeze_process(member->process->pid(), member->name);
}

bool Nemesis::freeze_rank() {
  Member* member = pick(Role::kWorker);
  const std::vector<pid_t> ranks =
      member == nullptr ? std::vector<pid_t>() : test_support::children_of(member->process->pid());
  return !ranks.empty() && freeze_process(ranks[random_() % ranks.size()], member->name);
}

bool Nemesis::break_link(Member* member, const std::function<void(int node, bool broken)>& set) {
  if (member == nullptr) return false;
  set(member->node, true);
  return record(member->name, pause(), [set, node = member->node] { set(node, false); });
}

bool Nemesis::bend_proxy(const LinkRule& rule) {
  Member* member = pick_any([](const Member& each) { return each.link >= 0; });
  if (member == nullptr) return false;
  proxy_.set_rule(member->link, rule);
  return record(member->name, pause(), [this, link = member->link] { proxy_.set_rule(link, {}); });
}

bool Nemesis::fill_disk() {
  Member* member = pick(Role::kScheduler);
  if (member == nullptr) return false;
  const std::string filler = topology_.journal_folder() + "/filler";
  const int fd = open(filler.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  const std::string block(1 << 16, 'f');
  while (write(fd, block.data(), block.size()) > 0) {
  }
  close(fd);
  return record(member->name, std::min(pause(), kShortPauseMaxMs), [filler] { std::filesystem::remove(filler); });
}

void Nemesis::turn() {
  const int64_t now = now_ms();
  for (size_t i = 0; i < undos_.size();) {
    if (undos_[i].at_ms > now) {
      ++i;
      continue;
    }
    const auto action = std::move(undos_[i].action);
    undos_.erase(undos_.begin() + static_cast<ptrdiff_t>(i));
    action();
  }
  if (now < next_ms_ || faults_.empty()) return;
  next_ms_ = now + between(options_.every_ms / 2, options_.every_ms * 3 / 2);
  const Fault& fault = faults_[random_() % faults_.size()];
  injecting_ = fault.name;
  if (!fault.inject()) return;
  const FaultRecord& injected = records_.back();
  std::printf("%8.1f s  %-16s %s", static_cast<double>(now - topology_.options().began_ms) / 1000,
              injected.fault.c_str(), injected.target.c_str());
  if (injected.lasts_ms > 0) std::printf(", %.1f s", static_cast<double>(injected.lasts_ms) / 1000);
  std::printf("\n");
  std::fflush(stdout);
}

void Nemesis::heal() {
  for (const Undo& undo : undos_) undo.action();
  undos_.clear();
  rogues_.stop();
}

}  // namespace optserve::chaos
