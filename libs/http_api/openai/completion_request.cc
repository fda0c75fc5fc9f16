#include "http_api/openai/completion_request.h"

#include <algorithm>
#include <type_traits>

#include "base/input_check.h"
#include "base/limits.h"
#include "client/choices.h"
#include "http_api/openai/completion_fields.h"
#include "http_api/openai/names.h"
#include "http_api/openai/prompts.h"
#include "protocol/validate.h"
#include "sampling/validate_params.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using protocol::JobSpec;
using MaybeError = std::optional<ApiError>;

constexpr size_t kChoicesPerRequestMax = 1'024;
// Tokens and alternatives of one answer; each takes some hundred bytes while the answer is made.
constexpr size_t kLogprobsPerRequestMax = 1'000'000;
constexpr size_t kKeyBytesMax = limits::kKeyBytesMax - 16;  // jobs append their numbers

ApiError refused_job(const Refusal& refusal, const Model& model) {
  return error_of_job(refusal, completion_fields(), request_name_of, model.context);
}

class CompletionReader {
 public:
  CompletionReader(const json& body, const RequestContext& context) : body_(body), context_(context) {}

  Parsed<CompletionRequest> read(const Models& models) {
    Parsed<Model> model = models.find(text("model"));
    if (!model.ok()) return model.error();
    request_.model = std::move(model).value();
    read_options();
    if (MaybeError error = read_job()) return *error;
    if (MaybeError error = read_beams()) return *error;
    if (MaybeError error = check_choices()) return *error;
    if (MaybeError error = check_sizes()) return *error;
    if (MaybeError error = check_scores()) return *error;
    if (MaybeError error = read_prompts()) return *error;
    if (MaybeError error = check_size_of_scores()) return *error;
    if (MaybeError error = check_jobs()) return *error;
    return std::move(request_);
  }

 private:
  template <class T>
  T get(std::string_view name, T fallback) const {
    return find_field<T>(body_, name).value_or(fallback);
  }
  std::string text(std::string_view name) const { return get<std::string>(name, ""); }

  void read_options() {
    CompletionRequest& r = request_;
    r.id = "cmpl-" + get("request_id", context_.request_id);
    r.created = context_.created;
    r.n = get("n", 1);
    r.best_of = get("best_of", r.n);
    r.echo = get("echo", false);
    r.logprobs = find_field<int>(body_, "logprobs");
    r.prompt_logprobs = find_field<int>(body_, "prompt_logprobs");
    r.stream = get("stream", false);
    r.background = r.keeps_running = get("background", false);
    r.return_token_ids = get("return_token_ids", false);
    r.tokens_as_ids = get("return_tokens_as_token_ids", false);
    r.return_metrics = get("return_metrics", false);
    if (has_field(body_, "stream_options")) {
      r.include_usage = find_field<bool>(body_.at("stream_options"), "include_usage").value_or(false);
    }
  }

  void read_sampling(sampling::SamplingParams& params) const {
    sampling::for_each_parameter(params, [this]<class T>(const sampling::ParameterInfo& info, T& field) {
      if constexpr (!std::is_enum_v<T> && !std::is_same_v<T, uint64_t>) {
        field = get(request_name_of(info.name), field);
      }
    });
    params.top_k = std::max(params.top_k, 0);
  }

  void read_rules(sampling::TokenRules& rules) const {
    rules.allowed_ids = get("allowed_token_ids", std::vector<TokenId>{});
    rules.stop_ids = get("stop_token_ids", std::vector<TokenId>{});
    rules.logit_bias = read_biases(body_, "logit_bias");
  }

  MaybeError read_job() {
    JobSpec& job = request_.job;
    job.model = request_.model.name;
    read_sampling(job.sampling);
    read_rules(job.rules);
    const Result<sampling::SamplingProfile> profile =
        sampling::parse_sampling_profile(get<std::string>("profile", "default"));
    if (!profile.ok()) return invalid_value("profile", profile.refusal().message);
    job.sampling.profile = profile.value();
    job.max_new_tokens = get("max_tokens", job.max_new_tokens);
    job.stop = read_strings(body_, "stop");
    job.bad_words = get("bad_words", job.bad_words);
    job.include_stop = get("include_stop_str_in_output", false);
    job.priority = get("priority", 0);
    job.queue_ms = get("queue_timeout_ms", job.queue_ms);
    if (context_.patience_ms > 0 && !request_.background) {
      job.ttl_ms = std::min(context_.patience_ms, limits::kJobTtlMsMax);
    }
    job.ttl_ms = get("deadline_ms", job.ttl_ms);
    job.on_disconnect = request_.background ? protocol::OnDisconnect::kContinue : protocol::OnDisconnect::kCancel;
    job.tenant = context_.tenant.empty() ? name_of(text("user"), limits::kTenantBytesMax) : context_.tenant;
    job.traceparent = context_.traceparent;
    read_identity(job);
    job.prompt_logprobs = request_.prompt_logprobs || (request_.echo && (request_.logprobs || job.max_new_tokens == 0));
    job.prompt_best = std::max(request_.prompt_logprobs.value_or(0), request_.echo ? request_.logprobs.value_or(0) : 0);
    return std::nullopt;
  }

  // Sets key, group and seed, from the idempotency key if there is one, since a repeated request must give the same
  // jobs.
  void read_identity(JobSpec& job) {
    const std::string key = get("idempotency_key", context_.idempotency_key);
    job.key = name_of(key, kKeyBytesMax);
    job.group = name_of(key.empty() ? request_.id : "cmpl-" + job.key, limits::kGroupBytesMax);
    request_.seed = key.empty() ? context_.random : number_of(key);
    request_.has_seed = has_field(body_, "seed");
    if (!request_.has_seed) return;
    const json& seed = body_.at("seed");
    request_.seed = seed.is_number_unsigned() ? seed.get<uint64_t>() : static_cast<uint64_t>(seed.get<int64_t>());
  }

  MaybeError read_beams() {
    sampling::SamplingParams& params = request_.job.sampling;
    if (get("use_beam_search", false)) {
      if (!has_field(body_, "beam_width")) params.beam_width = request_.n;
      if (params.beam_width == 1) params.temperature = 0;  // a search with one beam is the greedy choice
    }
    if (!params.is_beam_search() || request_.n <= params.beam_width) return std::nullopt;
    return invalid_value("n", "n is " + std::to_string(request_.n) + ", expected at most beam_width, which is " +
                                  std::to_string(params.beam_width));
  }

  MaybeError check_choices() const {
    const CompletionRequest& r = request_;
    if (r.best_of < r.n) {
      return invalid_value("best_of", "best_of is " + std::to_string(r.best_of) + ", expected at least n, which is " +
                                          std::to_string(r.n));
    }
    if (r.stream && r.best_of > r.n) {
      return invalid_value("best_of", "best_of above n cannot be streamed: which outputs are best is known at the end");
    }
    if (!r.stream && has_field(body_, "stream_options")) {
      return invalid_value("stream_options", "stream_options is only allowed with stream");
    }
    if (r.job.max_new_tokens == 0 && !r.echo) {
      return invalid_value("max_tokens", "max_tokens is 0, expected 1 to " + std::to_string(limits::kContextTokensMax) +
                                             "; 0 only scores the prompt and needs echo");
    }
    return std::nullopt;
  }

  MaybeError check_scores() const {
    const CompletionRequest& r = request_;
    if (r.logprobs) {
      if (MaybeError error = r.model.need_text("logprobs", "logprobs")) return error;
    }
    if (r.prompt_logprobs) {
      if (MaybeError error = r.model.need_text("prompt_logprobs", "prompt_logprobs")) return error;
    }
    return std::nullopt;
  }

  // Needs the prompts.
  MaybeError check_size_of_scores() const {
    const CompletionRequest& r = request_;
    const auto per_token = static_cast<size_t>(r.logprobs.value_or(-1) + 1);
    const auto per_prompt_token = static_cast<size_t>(r.job.prompt_logprobs ? 1 + r.job.prompt_best : 0);
    size_t values = r.prompts.size() * static_cast<size_t>(r.job.max_new_tokens) * per_token;
    for (const Prompt& prompt : r.prompts) values += prompt.ids.size() * per_prompt_token;
    values *= static_cast<size_t>(r.best_of);
    if (values <= kLogprobsPerRequestMax) return std::nullopt;
    return invalid_value("logprobs", "logprobs: " + std::to_string(values) + " values, at most " +
                                         std::to_string(kLogprobsPerRequestMax) +
                                         " are allowed in one answer; ask for fewer prompts at a time");
  }

  MaybeError check_sizes() const {
    const size_t choices = count_prompts(body_) * static_cast<size_t>(request_.best_of);
    if (choices <= kChoicesPerRequestMax) return std::nullopt;
    return invalid_value("prompt", "prompt: " + std::to_string(choices) + " outputs, at most " +
                                       std::to_string(kChoicesPerRequestMax) + " are allowed in one request");
  }

  MaybeError read_prompts() {
    const CompletionRequest& r = request_;
    PromptOptions options;
    options.max_tokens = r.job.max_new_tokens;
    options.add_leading_id = get("add_special_tokens", true);
    options.keep_last = find_field<int64_t>(body_, "truncate_prompt_tokens");
    options.needs_ids = r.return_token_ids || r.job.prompt_logprobs;
    options.needs_text = r.echo;
    Parsed<std::vector<Prompt>> prompts = http_api::read_prompts(body_.at("prompt"), r.model, options);
    if (!prompts.ok()) return prompts.error();
    request_.prompts = std::move(prompts).value();
    return std::nullopt;
  }

  MaybeError check_jobs() const {
    if (Status rules = sampling::validate(request_.job.rules, request_.model.vocab); !rules.ok()) {
      return refused_job(rules.refusal(), request_.model);
    }
    for (const Prompt& prompt : request_.prompts) {
      JobSpec job = request_.job_of(prompt);
      if (job.key.empty()) job.key = "chosen-by-the-client";
      if (Status status = protocol::validate(job); !status.ok()) return refused_job(status.refusal(), request_.model);
    }
    return std::nullopt;
  }

  const json& body_;
  const RequestContext& context_;
  CompletionRequest request_;
};

}  // namespace

bool CompletionRequest::is_shared() const {
  return job.sampling.is_beam_search() || (best_of > 1 && (job.sampling.is_greedy() || job.max_new_tokens == 0));
}

JobSpec CompletionRequest::job_of(const Prompt& prompt) const {
  JobSpec one = job;
  one.prompt_ids = prompt.ids;
  if (prompt.ids.empty()) one.prompt = prompt.text;
  one.sampling.seed = seed;
  return one;
}

std::vector<JobSpec> CompletionRequest::jobs() const {
  std::vector<JobSpec> all;
  all.reserve(num_jobs());
  for (size_t i = 0; i < prompts.size(); ++i) {
    JobSpec one = job_of(prompts[i]);
    if (num_jobs() == 1) one.group = lone_group;
    if (prompts.size() > 1 && !one.key.empty()) one.key += "-" + std::to_string(i + 1);
    // A seed from the request applies to every prompt, whatever other prompts there are. Otherwise equal prompts get
    // different seeds.
    if (!has_seed) one.sampling.seed += i * static_cast<uint64_t>(client::kChoicesMax);
    const int choices = jobs_per_prompt();
    Result<std::vector<JobSpec>> made = client::choice_jobs(one, std::min(n, choices), choices);
    check(made.ok(), "several jobs are made only of choices that differ");
    for (JobSpec& choice : made.value()) all.push_back(std::move(choice));
  }
  return all;
}

Parsed<CompletionRequest> parse_completion(std::string_view body, const Models& models, const RequestContext& context) {
  const Parsed<json> parsed = parse_body(body);
  if (!parsed.ok()) return parsed.error();
  if (MaybeError error = check_fields(parsed.value(), completion_fields())) return *error;
  return CompletionReader(parsed.value(), context).read(models);
}

}  // namespace optserve::http_api
