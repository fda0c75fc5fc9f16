#include "simulation/nodes/worker_node.h"

#include <utility>

#include "batching/draft_source.h"

namespace optserve::simulation {
namespace {

constexpr milliseconds kStepTime{8};
constexpr microseconds kTokenTime{60};
constexpr seconds kStepDeadline{20};  // then the supervisor ends the group

batching::PlannerOptions planner_options(const WorkerShape& shape, int32_t context) {
  batching::PlannerOptions options;
  options.num_blocks = shape.blocks;
  options.max_sequences = shape.slots;
  options.max_step_tokens = shape.step_tokens;
  options.max_context = context;
  return options;
}

}  // namespace

SimulatedEngine::SimulatedEngine(Environment& environment, const batching::PlannerOptions& options)
    : env_(environment), planner_(options), slots_(static_cast<size_t>(options.max_sequences)) {}

void SimulatedEngine::plan(std::vector<batching::SequenceEvent>& events) {
  for (batching::SequenceRequest& request : std::exchange(added_, {})) {
    batching::add_sequence(planner_, std::move(request), events);
  }
  for (const batching::SequenceId id : std::exchange(cancelled_, {})) planner_.cancel(id);
  while (auto step = planner_.plan()) planned_.push_back(std::move(*step));
}

Duration SimulatedEngine::step_time() const { return kStepTime + kTokenTime * planned_.front().num_tokens(); }

void SimulatedEngine::finish_step(std::vector<batching::SequenceEvent>& events, bool finite) {
  const batching::StepPlan plan = std::move(planned_.front());
  planned_.pop_front();
  batching::StepResult result;
  result.step = plan.step;
  for (const batching::AdmittedSlot& admitted : plan.admitted) {
    slots_[static_cast<size_t>(admitted.slot)] = {admitted.prompt_tokens, admitted.sampling};
  }
  for (const batching::SlotWork& work : plan.work) {
    const Slot& slot = slots_[static_cast<size_t>(work.slot)];
    if (work.sample) {
      const auto position = static_cast<uint64_t>(work.start + work.num_tokens - slot.prompt_tokens);
      result.sampled.push_back({work.slot, env_.model.token(slot.sampling, position), 0, finite});
    }
    if (work.logprob_targets.empty()) continue;
    batching::SlotLogprobs logprobs{work.slot, work.start, {}};
    for (const TokenId target : work.logprob_targets) {
      logprobs.logprobs.push_back(target < 0 ? 0 : env_.model.logprob(target));
    }
    result.logprobs.push_back(std::move(logprobs));
  }
  ++steps_;
  for (batching::SequenceEvent& event : planner_.apply(result)) events.push_back(std::move(event));
}

WorkerNode::WorkerNode(Environment& environment, Network& network, const WorkerShape& shape,
                       const worker::WorkerMetrics& metrics)
    : Process(environment, network, 1), shape_(shape), metrics_(metrics) {
  kind_ = "worker";
}

std::unique_ptr<transport::Service> WorkerNode::make_service() {
  engine_ = std::make_unique<SimulatedEngine>(env_, planner_options(shape_, env_.model.info().context));
  stepping_ = waking_ = false;
  protocol::Register hello;
  hello.instance = env_.dice.id();
  hello.kind = protocol::ServiceKind::kWorker;
  hello.name = name();
  hello.build = "simulation";
  hello.models = {env_.model.info()};
  hello.max_sequences = shape_.leases;
  hello.kv_tokens = int64_t{shape_.blocks} * limits::kKvBlockTokens;
  transport::SchedulerLinkOptions link;
  link.seed = env_.dice.number();
  auto service = std::make_unique<worker::WorkerService>(std::move(hello), link, *engine_, metrics_);
  worker_ = service.get();
  return service;
}

void WorkerNode::on_crash() {
  worker_ = nullptr;
  hung_until_ = broken_until_ = {};
}

void WorkerNode::hang(Instant until) {
  if (!is_running()) return;
  env_.note("hang", static_cast<int>(number));
  hung_until_ = until;
}

void WorkerNode::heal() {
  broken_until_ = {};
  if (env_.now() >= hung_until_) return;
  hung_until_ = {};
  if (!is_running()) return;
  crash();  // nobody wakes up from a hang: the supervisor starts another
  start();
}

void WorkerNode::leave() {
  if (!is_running() || is_paused()) return;
  env_.note("leave", static_cast<int>(number), kind_);
  service()->begin_drain(local_now(), out());
  flush();
}

void WorkerNode::on_turn() {
  if (waking_ || stepping_) return;
  wake(incarnation());
}

// The engine thread sees a command a moment after the message thread gave it.
void WorkerNode::on_delivered(const protocol::Message&) {
  if (stepping_ || std::exchange(waking_, true)) return;
  env_.queue.after<&WorkerNode::wake>(microseconds(20), *this, incarnation());
}

void WorkerNode::wake(uint64_t incarnation_then) {
  if (incarnation_then != incarnation() || !is_running()) return;
  waking_ = false;
  if (!stepping_) plan_next();
}

void WorkerNode::plan_next() {
  if (is_paused()) {
    waking_ = true;
    env_.queue.at<&WorkerNode::wake>(paused_until(), *this, incarnation());
    return;
  }
  std::vector<batching::SequenceEvent> events;
  engine_->plan(events);
  stepping_ = engine_->has_step();
  if (stepping_) env_.queue.after<&WorkerNode::step_done>(engine_->step_time(), *this, incarnation());
  publish(std::move(events));
}

void WorkerNode::step_done(uint64_t incarnation_then) {
  if (incarnation_then != incarnation() || !is_running()) return;
  if (const Instant free = std::max(paused_until(), hung_until_); env_.now() < free) {
    if (env_.now() < hung_until_ && hung_until_ - env_.now() > kStepDeadline && env_.dice.chance(0.5)) {
      crash();
      start();
      return;
    }
    env_.queue.at<&WorkerNode::step_done>(free, *this, incarnation_then);
    return;
  }
  std::vector<batching::SequenceEvent> events;
  const bool finite = env_.now() >= broken_until_ || !env_.dice.chance(0.1);
  engine_->finish_step(events, finite);
  stepping_ = false;
  plan_next();
  publish(std::move(events));
}

void WorkerNode::publish(std::vector<batching::SequenceEvent> events) {
  if (events.empty() || worker_ == nullptr) return;
  worker_->on_engine_events(std::move(events), out());
  flush();
}

}  // namespace optserve::simulation
