#include "job_json/job_json.h"

#include <nlohmann/json.hpp>
#include <numeric>

namespace optserve::job_json {
namespace {

using nlohmann::ordered_json;
using protocol::JobResult;
using protocol::ModelStatus;
using protocol::ServiceStatus;
using protocol::SystemStatus;

ordered_json error_name(const std::optional<ErrorCode>& error) {
  return error ? ordered_json(std::string(error_code_name(*error))) : ordered_json();
}

ordered_json timings_json(const protocol::Timings& timings) {
  return {{"encode_ms", timings.encode_ms},
          {"queue_ms", timings.queue_ms},
          {"first_token_ms", timings.first_token_ms},
          {"run_ms", timings.run_ms},
          {"total_ms", timings.total_ms}};
}

ordered_json best_json(const std::vector<std::vector<sampling::TokenLogprob>>& places) {
  ordered_json best = ordered_json::array();
  for (const auto& tokens : places) {
    ordered_json& at_place = best.emplace_back(ordered_json::array());
    for (const sampling::TokenLogprob& token : tokens) {
      at_place.push_back({{"id", token.id}, {"logprob", token.logprob}});
    }
  }
  return best;
}

ordered_json tries_json(const std::vector<protocol::JobAttempt>& tries) {
  ordered_json list = ordered_json::array();
  for (const protocol::JobAttempt& one : tries) {
    list.push_back({{"number", one.number},
                    {"began_ms", one.began_ms},
                    {"ended_ms", one.ended_ms},
                    {"service", one.service},
                    {"loss", one.loss}});
  }
  return list;
}

void add_logprobs(const JobResult& result, ordered_json& root) {
  if (result.logprobs.empty()) return;
  root["logprobs"] = result.logprobs;
  root["cumulative_logprob"] = std::accumulate(result.logprobs.begin(), result.logprobs.end(), 0.0);
  root["best"] = best_json(result.best);
}

ordered_json facts(const JobResult& result, bool with_output) {
  ordered_json root{{"job", result.job.hex()},
                    {"key", result.key},
                    {"tenant", result.tenant},
                    {"group", result.group},
                    {"state", protocol::job_state_name(result.state)},
                    {"finish_reason", protocol::finish_reason_name(result.finish_reason)},
                    {"error", error_name(result.error)},
                    {"message", result.message}};
  if (with_output) {
    root["text"] = result.text;
    root["ids"] = result.ids;
  }
  root["prompt_tokens"] = result.prompt_tokens;
  root["output_tokens"] = result.ids.size();
  root["attempts"] = result.attempts;
  root["losses"] = result.losses;
  root["position"] = result.position;
  root["eta_ms"] = result.eta_ms;
  root["progress_done"] = result.progress_done;
  root["progress_total"] = result.progress_total;
  root["timings"] = timings_json(result.timings);
  root["kind"] = protocol::job_kind_name(result.kind);
  if (!result.traceparent.empty()) root["traceparent"] = result.traceparent;
  if (!result.tries.empty()) root["tries"] = tries_json(result.tries);
  return root;
}

ordered_json services_json(const SystemStatus& status) {
  ordered_json services = ordered_json::array();
  for (const ServiceStatus& service : status.services) {
    services.push_back({{"kind", service.kind},
                        {"instance", service.instance},
                        {"name", service.name},
                        {"models", service.models},
                        {"running", service.running},
                        {"capacity", service.capacity},
                        {"slots", service.slots > 0 ? service.slots : service.capacity},
                        {"silent_ms", service.silent_ms},
                        {"draining", service.draining},
                        {"paused", service.paused}});
  }
  return services;
}

ordered_json models_json(const SystemStatus& status) {
  ordered_json models = ordered_json::array();
  for (const ModelStatus& model : status.models) {
    models.push_back({{"name", model.name},
                      {"mode", protocol::queue_mode_name(model.mode)},
                      {"queued", model.queued},
                      {"running", model.running},
                      {"tokens_per_second", model.tokens_per_second},
                      {"eta_ms", model.eta_ms}});
  }
  return models;
}

ordered_json scheduler_json(const client::SchedulerAnswer<SystemStatus>& scheduler) {
  if (!scheduler.answer.ok()) {
    const Refusal& refusal = scheduler.answer.refusal();
    return {{"endpoint", scheduler.endpoint},
            {"error", std::string(error_code_name(refusal.code))},
            {"message", refusal.message}};
  }
  const SystemStatus& status = scheduler.answer.value();
  return {{"endpoint", scheduler.endpoint}, {"term", status.term},
          {"durable", status.durable},      {"read_only", status.read_only},
          {"draining", status.draining},    {"mode", protocol::queue_mode_name(status.mode)},
          {"queued", status.queued},        {"running", status.running},
          {"finished", status.finished},    {"failed", status.failed},
          {"cancelled", status.cancelled},  {"expired", status.expired},
          {"models", models_json(status)},  {"services", services_json(status)}};
}

}  // namespace

ordered_json result_json(const JobResult& result) {
  ordered_json root = facts(result, true);
  if (!result.prompt_ids.empty()) root["prompt_ids"] = result.prompt_ids;
  if (!result.prompt_logprobs.empty()) root["prompt_logprobs"] = result.prompt_logprobs;
  if (!result.prompt_best.empty()) root["prompt_best"] = best_json(result.prompt_best);
  add_logprobs(result, root);
  for (const protocol::Hypothesis& hypothesis : result.hypotheses) {
    root["hypotheses"].push_back({{"text", hypothesis.text},
                                  {"ids", hypothesis.ids},
                                  {"logprob", hypothesis.logprob},
                                  {"score", hypothesis.score},
                                  {"finish_reason", protocol::finish_reason_name(hypothesis.finish_reason)}});
  }
  return root;
}

ordered_json state_json(const JobResult& result) { return facts(result, false); }

ordered_json job_json(const JobResult& result, const std::optional<protocol::JobSummary>& summary) {
  ordered_json root = result_json(result);
  root["model"] = summary ? ordered_json(summary->model) : ordered_json();
  root["prompt"] = result.prompt;
  root["accepted_ms"] = summary ? ordered_json(summary->accepted_wall_ms) : ordered_json();
  return root;
}

ordered_json outcome_json(const protocol::SubmitOutcome& outcome) {
  return {{"job", outcome.job ? ordered_json(outcome.job->hex()) : ordered_json()},
          {"position", outcome.position},
          {"eta_ms", outcome.eta_ms},
          {"retry_after_ms", outcome.retry_after_ms},
          {"duplicate", outcome.duplicate},
          {"error", error_name(outcome.error)},
          {"message", outcome.message}};
}

ordered_json summary_json(const protocol::JobSummary& job) {
  return {{"job", job.job.hex()},
          {"key", job.key},
          {"tenant", job.tenant},
          {"group", job.group},
          {"model", job.model},
          {"kind", protocol::job_kind_name(job.kind)},
          {"state", protocol::job_state_name(job.state)},
          {"attempts", job.attempts},
          {"progress_done", job.progress_done},
          {"progress_total", job.progress_total},
          {"accepted_ms", job.accepted_wall_ms},
          {"message", job.message}};
}

ordered_json group_json(const std::string& tenant, const std::string& name, const protocol::GroupStatus& group) {
  return {{"tenant", tenant},         {"group", name},
          {"open", group.open},       {"succeeded", group.succeeded},
          {"failed", group.failed},   {"cancelled", group.cancelled},
          {"expired", group.expired}, {"dead", group.dead}};
}

ordered_json status_json(const client::Answers<SystemStatus>& answers) {
  ordered_json schedulers = ordered_json::array();
  for (const auto& scheduler : answers) schedulers.push_back(scheduler_json(scheduler));
  return {{"schedulers", std::move(schedulers)}};
}

std::string json_text(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace optserve::job_json
