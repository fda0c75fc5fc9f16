#include "simulation/world.h"

#include <algorithm>

namespace optserve::simulation {
namespace {

// After the faults. A lease is lost with a silent worker within seconds and with a stuck one within a minute, retries
// wait half a minute at most, clients ask again within ten seconds.
constexpr seconds kEndsWithin{170};
// If a message is lost although its connection lives, only the job's own deadline repairs that.
constexpr seconds kEndsWithinAfterMischief{420};
constexpr seconds kUseAfter{20};

}  // namespace

WorldSettings small_world(uint64_t seed, Plant plant) {
  WorldSettings settings;
  settings.seed = seed;
  settings.plant = plant;
  Dice dice(mix(seed, 77));
  settings.workers = 2 + dice.below(3);
  settings.tokenizers = 1 + dice.below(2);
  settings.clients = 1 + dice.below(4);
  settings.jobs = 20 + dice.below(30);
  settings.hostile = plant != Plant::kLostWork && dice.chance(0.3);
  settings.fault_time = seconds(10 + dice.below(40));
  if (dice.chance(0.3) || plant == Plant::kNoCap) settings.open_jobs_max = 8 + dice.below(20);
  if (dice.chance(0.3)) settings.subscriptions_per_job_max = 1 + dice.below(3);
  settings.rushes = dice.chance(0.3) || plant == Plant::kOtherWeights;
  settings.operators = dice.chance(0.5) || plant == Plant::kForgetModes || plant == Plant::kForgetGroups ? 1 : 0;
  if (dice.chance(0.5) || plant == Plant::kOtherWeights) settings.tenant_weights = "alice=4,bob=0.5";
  return settings;
}

WorldSettings large_world(uint64_t seed, size_t workers, uint64_t jobs) {
  WorldSettings settings;
  settings.seed = seed;
  settings.large = true;
  settings.workers = workers;
  settings.jobs = jobs;
  settings.tokenizers = 4;
  settings.clients = 16;
  settings.fault_time = seconds(20);
  settings.open_jobs = std::min<uint64_t>(90'000, workers * 24);
  return settings;
}

Outcome run_world(const WorldSettings& settings) {
  static metrics::Registry registry;  // counts for all worlds of a program; nothing reads it
  return World(settings, registry).run();
}

World::World(const WorldSettings& settings, metrics::Registry& registry)
    : env_(settings, registry),
      ledger_(env_),
      network_(env_),
      store_(env_, ledger_),
      scheduler_(env_, network_, store_, ledger_) {
  const worker::WorkerMetrics metrics(registry);
  Victims victims{network_, scheduler_, store_, {}, {}, {}, {}};
  for (size_t i = 0; i < settings.tokenizers; ++i) {
    processes_.push_back(std::make_unique<TokenizerNode>(env_, network_));
    victims.services.push_back(processes_.back().get());
  }
  WorkerShape shape;
  for (size_t i = 0; i < settings.workers; ++i) {
    if (!settings.large) {
      shape.slots = static_cast<int32_t>(env_.dice.between(1, 6));
      shape.leases = shape.slots + (shape.slots + 3) / 4;
      shape.blocks = static_cast<int32_t>(env_.dice.between(32, 128));
      shape.step_tokens = static_cast<int32_t>(env_.dice.between(16, 256));
    }
    auto worker = std::make_unique<WorkerNode>(env_, network_, shape, metrics);
    workers_.push_back(worker.get());
    victims.services.push_back(worker.get());
    processes_.push_back(std::move(worker));
  }
  build_clients();
  for (const auto& process : processes_) {
    network_.add(*process);
    victims.processes.push_back(process.get());
    if (process->port() == 0) victims.clients.push_back(process.get());
  }
  victims.workers = workers_;
  scheduler_.let_caps_be_small(!settings.large && env_.dice.chance(0.3));
  nemesis_ = std::make_unique<Nemesis>(env_, std::move(victims));
}

void World::build_clients() {
  if (env_.settings.large) {
    for (size_t i = 0; i < env_.settings.clients; ++i) {
      auto client = std::make_unique<BulkClientNode>(env_, network_, ledger_, next_job_);
      bulk_clients_.push_back(client.get());
      processes_.push_back(std::move(client));
    }
    return;
  }
  for (std::vector<PlannedJob>& plan : plan_jobs(env_)) {
    auto client = std::make_unique<ClientNode>(env_, network_, ledger_, std::move(plan));
    clients_.push_back(client.get());
    processes_.push_back(std::move(client));
  }
  for (size_t i = 0; i < env_.settings.operators; ++i) {
    auto operating = std::make_unique<OperatorNode>(env_, network_, ledger_, workers_);
    operators_.push_back(operating.get());
    processes_.push_back(std::move(operating));
  }
}

Outcome World::run() {
  Outcome outcome;
  outcome.seed = env_.settings.seed;
  try {
    scheduler_.start();
    for (const auto& process : processes_) process->start();
    nemesis_->start();
    env_.queue.after<&World::heal>(env_.settings.fault_time, *this);
    run_to_end();
  } catch (const Violation& violation) {
    outcome.broken = violation.invariant();
    outcome.what = violation.what();
    outcome.trace = env_.trace.last_lines();
  }
  fill(outcome);
  return outcome;
}

void World::fill(Outcome& outcome) const {
  outcome.hash = env_.trace.hash();
  outcome.events = env_.queue.done();
  outcome.simulated_seconds = std::chrono::duration<double>(env_.now() - kStart).count();
  outcome.accepted = ledger_.accepted();
  outcome.succeeded = ledger_.succeeded();
  outcome.dispatched = ledger_.dispatched();
  outcome.put_back = ledger_.put_back();
  outcome.scheduler_starts = ledger_.starts();
  outcome.scheduler_seconds = scheduler_.busy_seconds();
  outcome.scheduler_calls = scheduler_.calls();
  outcome.longest_call_ns = scheduler_.longest_call_ns();
  outcome.gated_max = scheduler_.gated_max();
}

void World::heal(uint64_t) {
  nemesis_->stop();
  if (!env_.settings.hostile && !env_.settings.large) env_.queue.after<&World::check_use>(kUseAfter, *this);
}

void World::run_to_end() {
  const Duration allowed = env_.settings.hostile || env_.settings.large ? kEndsWithinAfterMischief : kEndsWithin;
  const Instant limit = env_.now() + env_.settings.fault_time + allowed +
                        milliseconds(static_cast<int64_t>(env_.settings.large ? env_.settings.jobs : 0));
  while (env_.faulty || !is_done()) {
    if (env_.now() > limit) ledger_.fail(Invariant::kLiveness, "did not end:" + unfinished());
    env_.queue.run_next();
  }
}

bool World::is_done() const {
  const auto done = [](const auto* client) { return client->is_done(); };
  if (!std::all_of(clients_.begin(), clients_.end(), done)) return false;
  if (!std::all_of(bulk_clients_.begin(), bulk_clients_.end(), done)) return false;
  if (!std::all_of(operators_.begin(), operators_.end(), done)) return false;
  return store_.is_idle() && store_.disk().open.empty();
}

std::string World::unfinished() const {
  std::string text = ledger_.is_anything_held() ? " something is held" : "";
  for (const ClientNode* client : clients_) text += client->unfinished();
  for (const Ledger::Entry* entry : ledger_.open_entries()) {
    if (text.size() > 2'000) break;
    text += " open: " + entry->name + "(" + entry->id.hex() + ", lease " + std::to_string(entry->lease) + ")";
  }
  return text;
}

// A worker that could take a job that waits has one, within a second or two.
void World::check_use(uint64_t) {
  env_.queue.after<&World::check_use>(seconds(1), *this);
  std::vector<InstanceId> idle;
  const scheduler::SchedulerService* service = scheduler_.service();
  if (service != nullptr && !ledger_.is_anything_held()) {
    for (const auto* worker : service->services().of_kind(protocol::ServiceKind::kWorker)) {
      if (!worker->leases.empty() || !worker->is_usable(env_.now())) continue;
      bool is_wanted = false;
      service->jobs().for_each([&](const scheduler::Job& job) {
        is_wanted |= job.stage() == scheduler::Stage::kWaiting && job.attempts().avoid != worker->info.instance;
      });
      if (is_wanted) idle.push_back(worker->info.instance);
    }
  }
  for (const InstanceId& worker : idle) {
    if (std::find(idle_.begin(), idle_.end(), worker) == idle_.end()) continue;
    ledger_.fail(Invariant::kLiveness, "worker " + worker.hex() + " stays idle while jobs wait");
  }
  idle_ = std::move(idle);
}

}  // namespace optserve::simulation
