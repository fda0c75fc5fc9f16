#include "simulation/nodes/scheduler_node.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <utility>

namespace optserve::simulation {
namespace {

constexpr uint64_t kCompareEvery = 7;  // commits
constexpr uint64_t kTimesEvery = 16;   // ticks
constexpr int64_t kWallAtStart = 1'700'000'000'000;

uint64_t thread_ns() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

SchedulerNode::SchedulerNode(Environment& environment, Network& network, SimulatedStore& store, Ledger& ledger)
    : env_(environment), network_(network), store_(store), ledger_(ledger) {
  store_.set_listener(*this);
  network_.set_scheduler(*this);
}

Instant SchedulerNode::local_now() const {
  if (!env_.is_planted(Plant::kSlowClock)) return env_.now();
  return Instant(env_.now().time_since_epoch() / 10 * 9);
}

int64_t SchedulerNode::wall_ms() const {
  return kWallAtStart + wall_offset_ms_ +
         std::chrono::duration_cast<milliseconds>(env_.now().time_since_epoch()).count();
}

// Calls into the service: measures them, and tells the checker what time it is for the scheduler.
template <class F>
void SchedulerNode::call(F&& body) {
  ledger_.set_clock(env_.now());
  ++calls_;
  if (!env_.settings.large) {
    body();
    return;
  }
  const uint64_t begin = thread_ns();
  body();
  const uint64_t took = thread_ns() - begin;
  busy_ns_ += took;
  longest_ns_ = std::max(longest_ns_, took);
}

scheduler::SchedulerOptions SchedulerNode::options() {
  scheduler::SchedulerOptions options;
  options.start = local_now();
  options.wall_ms = [this] { return wall_ms(); };
  options.seed = env_.dice.number();
  options.new_job_id = [ids = std::make_shared<Dice>(env_.dice.number())] { return ids->id(); };
  options.models = {env_.model.info().name};
  options.open_jobs_max = env_.settings.open_jobs_max * (env_.is_planted(Plant::kNoCap) ? 100 : 1);
  options.subscriptions_per_job_max = env_.settings.subscriptions_per_job_max;
  if (!env_.is_planted(Plant::kOtherWeights)) {
    options.tenant_weights = scheduler::TenantWeights::parse(env_.settings.tenant_weights).value();
  }
  if (small_caps_) {
    options.waiting_folder = std::filesystem::temp_directory_path().string();
    options.waiting_in_memory_max = 2;
    options.recent_bytes_max = 4'096;
    options.store_questions_max = 4;
  }
  if (env_.dice.chance(0.5)) options.crashes_max = 100;
  return options;
}

void SchedulerNode::start() {
  ++life_;
  gated_.clear();
  inbox_.clear();
  out_ = {};
  flush_planned_ = false;
  scheduler::SchedulerOptions given = options();
  journal::Recovery recovery = store_.recover();
  term_ = recovery.term;
  env_.note("scheduler up", -1, "", term_);
  ledger_.on_start(recovery, store_.disk(), env_.now(), store_.time_ms(given.start));
  service_ =
      std::make_unique<scheduler::SchedulerService>(std::move(given), store_, std::move(recovery), env_.registry);
  ledger_.watch(service_.get());
  env_.queue.after<&SchedulerNode::tick>(Duration::zero(), *this, life_);
}

void SchedulerNode::end_process(Duration downtime) {
  ledger_.watch(nullptr);
  service_.reset();
  counted_groups_.clear();
  introduced_.clear();
  late_.reset();
  gated_.clear();
  inbox_.clear();
  out_ = {};
  paused_until_ = {};
  ++life_;
  store_.crash();
  network_.scheduler_gone();
  env_.queue.after<&SchedulerNode::restart>(downtime, *this, life_);
}

void SchedulerNode::crash(Duration downtime) {
  if (service_ == nullptr) return;
  env_.note("scheduler crash", -1);
  end_process(downtime);
}

void SchedulerNode::stop_in_order(Duration downtime) {
  if (service_ == nullptr || is_paused()) return;
  env_.note("scheduler stop", -1);
  call([&] { service_->give_back_leases(); });
  store_.commit_all();
  end_process(downtime);
}

void SchedulerNode::restart(uint64_t life) {
  if (life == life_ && service_ == nullptr) start();
}

void SchedulerNode::pause(Instant until) {
  if (service_ == nullptr || is_paused()) return;
  env_.note("scheduler pause", -1);
  paused_until_ = until;
  if (until - env_.now() > kConnectionLife) network_.scheduler_silent_for_long();
  env_.queue.at<&SchedulerNode::resume>(until, *this, life_);
}

void SchedulerNode::resume(uint64_t life) {
  if (life != life_ || service_ == nullptr || is_paused()) return;
  env_.note("scheduler resume", -1);
  for (auto& [from, message] : std::exchange(inbox_, {})) {
    if (message) {
      receive(from, std::move(*message));
    } else {
      connection_ended(from);
    }
  }
  want_flush();
}

void SchedulerNode::receive(const transport::Peer& sender, protocol::Message message) {
  if (service_ == nullptr) return;
  if (is_paused()) {
    inbox_.emplace_back(sender, std::move(message));
    return;
  }
  transport::Peer from = sender;
  if (auto* tokens = std::get_if<protocol::Tokens>(&message); tokens != nullptr && env_.is_planted(Plant::kNoFence)) {
    unfence(from, *tokens);
  }
  before(message);
  if (const auto* attach = std::get_if<protocol::Attach>(&message)) introduced_.emplace(sender, attach->job);
  const auto* group = std::get_if<protocol::GetGroup>(&message);
  const std::optional<protocol::GetGroup> asked = group != nullptr ? std::optional(*group) : std::nullopt;
  call([&] { service_->on_message(from, std::move(message), local_now(), out_); });
  if (asked) after(from, *asked);
  want_flush();
}

void SchedulerNode::before(const protocol::Message& message) {
  if (const auto* cancel = std::get_if<protocol::Cancel>(&message)) ledger_.on_cancel(cancel->job);
  const auto* group = std::get_if<protocol::GetGroup>(&message);
  if (group != nullptr && group->cancel) ledger_.on_cancel(*group);
}

// One that cancels is answered later. While the scheduler has not heard what was purged, it counts that as well.
void SchedulerNode::after(const transport::Peer& from, const protocol::GetGroup& asked) {
  if (asked.cancel || store_.has_answers()) return;
  counted_groups_.emplace(std::pair(from, asked.request), ledger_.count(asked));
}

void SchedulerNode::check_group(const transport::Outgoing& item) {
  const auto* told = std::get_if<protocol::GroupStatus>(&item.message);
  if (told == nullptr) return;
  // A request that came twice may be answered out of order: the answer is to one of the two.
  const auto [first, last] = counted_groups_.equal_range({item.to, told->request});
  if (first == last) return;
  const auto same = std::find_if(first, last, [&](const auto& counted) { return counted.second == *told; });
  const auto counted = same == last ? first : same;
  ledger_.check_group(*told, counted->second);
  counted_groups_.erase(counted);
}

void SchedulerNode::connection_ended(const transport::Peer& peer) {
  if (service_ == nullptr) return;
  if (is_paused()) {
    inbox_.emplace_back(peer, std::nullopt);
    return;
  }
  call([&] { service_->on_ended(peer, local_now(), out_); });
  want_flush();
}

// The answer to a Submit comes before anything else about its jobs.
void SchedulerNode::check_introduced(const transport::Peer& to, const protocol::Message& message) {
  if (env_.settings.large) return;
  const auto check = [&](const JobId& job) {
    if (introduced_.contains({to, job})) return;
    ledger_.fail(Invariant::kStreamWhole, "job " + job.hex() + " is told of before the answer to its submit");
  };
  if (const auto* reply = std::get_if<protocol::SubmitReply>(&message)) {
    for (const protocol::SubmitOutcome& outcome : reply->outcomes) {
      if (outcome.job) introduced_.emplace(to, *outcome.job);
    }
  } else if (const auto* events = std::get_if<protocol::JobEvents>(&message)) {
    for (const protocol::JobEvent& event : events->events) check(event.job);
  } else if (const auto* finished = std::get_if<protocol::JobFinished>(&message)) {
    check(finished->result.job);
  }
}

void SchedulerNode::tick(uint64_t life) {
  if (life != life_ || service_ == nullptr) return;
  if (is_paused()) {
    env_.queue.at<&SchedulerNode::tick>(paused_until_, *this, life);
    return;
  }
  call([&] { service_->on_tick(local_now(), out_); });
  if (!env_.settings.large && ++ticks_ % kTimesEvery == 0) ledger_.check_times(*service_);
  want_flush();
  env_.queue.after<&SchedulerNode::tick>(service_->tick_interval(), *this, life);
}

void SchedulerNode::want_flush() {
  if (std::exchange(flush_planned_, true)) return;
  const Duration busy = env_.dice.between(Duration::zero(), microseconds(200));
  env_.queue.after<&SchedulerNode::flush>(busy, *this, life_);
}

void SchedulerNode::flush(uint64_t life) {
  if (life != life_ || service_ == nullptr) return;
  flush_planned_ = false;
  if (is_paused()) return;
  const uint64_t durable = store_.durable();
  while (!gated_.empty() && gated_.front().after <= durable) {
    transport::Outgoing item = std::move(gated_.front());
    gated_.pop_front();
    send(std::move(item));
  }
  for (int round = 0; round < kFlushRounds; ++round) {
    call([&] { service_->on_flush(local_now(), out_); });
    if (out_.empty()) break;
    for (transport::Outgoing& item : out_.take()) {
      if (item.after != 0 && (item.after > durable || !gated_.empty())) {
        gated_.push_back(std::move(item));
      } else {
        send(std::move(item));
      }
    }
  }
  gated_max_ = std::max(gated_max_, gated_.size());
  if (!out_.empty()) want_flush();
  if (!env_.settings.large) ledger_.check_leases(*service_);
}

void SchedulerNode::send(transport::Outgoing item) {
  if (env_.is_planted(Plant::kLateReply) && std::holds_alternative<protocol::SubmitReply>(item.message)) {
    const auto earlier = std::exchange(late_, std::move(item));
    if (earlier) send_now(*earlier);
    return;
  }
  const bool is_overtaken = late_ && late_->to == item.to;
  send_now(std::move(item));
  if (is_overtaken) send_now(*std::exchange(late_, std::nullopt));
}

void SchedulerNode::send_now(transport::Outgoing item) {
  ledger_.on_sent(item.message, store_.disk());
  check_group(item);
  check_introduced(item.to, item.message);
  const Sent sent = network_.down(item.to, item.message);
  if (sent == Sent::kYes) return;
  env_.note(sent == Sent::kSlow ? "slow" : "gone", -1, protocol::message_name(item.message).data());
  call([&] { service_->on_undeliverable(item.to, std::move(item.message), sent == Sent::kSlow, local_now(), out_); });
}

void SchedulerNode::on_durable() {
  if (service_ == nullptr) return;
  if (!is_paused()) want_flush();
  if (store_.is_idle() && ++commits_ % (env_.settings.large ? kCompareEvery * 1'000 : kCompareEvery) == 0) {
    observe_state();
  }
}

void SchedulerNode::observe_state() {
  ledger_.compare(*service_, store_.disk());
  ledger_.check_leases(*service_);
}

void SchedulerNode::on_answers_ready() {
  if (service_ == nullptr || is_paused()) return;  // the next tick asks for them as well
  call([&] { service_->on_answers(local_now(), out_); });
  want_flush();
}

bool SchedulerNode::make_stale(protocol::Tokens& tokens, uint64_t present_term) const {
  protocol::Tokens lies;
  lies.term = tokens.term;
  for (size_t i = 0; i < tokens.leases.size(); ++i) {
    if (tokens.term == present_term && ledger_.is_current(tokens.leases[i])) continue;
    lies.leases.push_back(tokens.leases[i]);
    lies.positions.push_back(tokens.positions[i]);
    lies.tokens.push_back(kNeverSaid);
    lies.finished.push_back(0);
  }
  tokens = std::move(lies);
  return !tokens.leases.empty();
}

// As if leases had no numbers: every message about a job is believed.
void SchedulerNode::unfence(transport::Peer& from, protocol::Tokens& tokens) const {
  for (size_t i = 0; i < tokens.leases.size(); ++i) {
    if (tokens.tokens[i] != kNeverSaid) return;
    for (const auto* worker : service_->services().of_kind(protocol::ServiceKind::kWorker)) {
      if (worker->leases.empty()) continue;
      const auto& [lease, job] = *worker->leases.begin();
      from = worker->peer;
      tokens.term = term_;
      tokens.leases[i] = lease;
      tokens.positions[i] = static_cast<uint32_t>(job->output().ids.size());
    }
  }
}

}  // namespace optserve::simulation
