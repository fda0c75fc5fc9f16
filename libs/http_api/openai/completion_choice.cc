#include "http_api/openai/completion_choice.h"

#include <algorithm>

#include "http_api/openai/json_text.h"
#include "http_api/openai/token_texts.h"

namespace optserve::http_api {
namespace {

using nlohmann::ordered_json;
using protocol::JobResult;
using sampling::FinishReason;

// The four lists of "logprobs" while they are filled.
class LogprobLists {
 public:
  explicit LogprobLists(const CompletionRequest& request) : request_(request) {}

  std::string name(TokenId id) const {
    return request_.tokens_as_ids ? TokenTexts::id_text(id) : request_.model.texts->text(id);
  }

  void add(TokenId id, ordered_json logprob, ordered_json top) {
    tokens_.push_back(name(id));
    logprobs_.push_back(std::move(logprob));
    top_.push_back(std::move(top));
  }

  // `start` characters come before the ids' own text; no offset is beyond the end of the whole text.
  void add_offsets(std::span<const TokenId> ids, int64_t start, int64_t end) {
    for (const int64_t offset : request_.model.texts->offsets(ids, start)) offsets_.push_back(std::min(offset, end));
  }

  ordered_json take() {
    return {{"text_offset", std::move(offsets_)},
            {"token_logprobs", std::move(logprobs_)},
            {"tokens", std::move(tokens_)},
            {"top_logprobs", std::move(top_)}};
  }

 private:
  const CompletionRequest& request_;
  ordered_json tokens_ = ordered_json::array(), logprobs_ = ordered_json::array(), top_ = ordered_json::array(),
               offsets_ = ordered_json::array();
};

std::span<const TokenId> ids_of_prompt(const CompletionRequest& request, size_t prompt, const JobResult& result) {
  return result.prompt_ids.empty() ? std::span(request.prompts[prompt].ids) : std::span(result.prompt_ids);
}

// The best tokens at the position of prompt token `i`: the first `count` of those that were requested.
std::span<const sampling::TokenLogprob> best_in_prompt(const JobResult& result, size_t i, int count) {
  if (i - 1 >= result.prompt_best.size()) return {};
  const std::vector<sampling::TokenLogprob>& best = result.prompt_best[i - 1];
  return std::span(best).first(std::min(best.size(), static_cast<size_t>(count)));
}

ordered_json top_of(const LogprobLists& lists, std::span<const sampling::TokenLogprob> best, TokenId id,
                    double logprob) {
  ordered_json top = ordered_json::object();
  for (const sampling::TokenLogprob& token : best) top[lists.name(token.id)] = json_logprob(token.logprob);
  const std::string own = lists.name(id);
  if (!top.contains(own)) top[own] = logprob;
  return top;
}

void add_prompt(const CompletionRequest& request, std::span<const TokenId> ids, const JobResult& result,
                LogprobLists& lists) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i == 0 || i > result.prompt_logprobs.size()) {
      lists.add(ids[i], nullptr, nullptr);
      continue;
    }
    const double logprob = json_logprob(result.prompt_logprobs[i - 1]);
    lists.add(ids[i], logprob, top_of(lists, best_in_prompt(result, i, request.logprobs.value_or(0)), ids[i], logprob));
  }
}

void add_output(const Output& output, LogprobLists& lists) {
  for (size_t i = 0; i < output.ids.size(); ++i) {
    const TokenId id = output.ids[i];
    const double logprob = json_logprob(output.logprobs[i]);
    const auto best = i < output.best.size() ? std::span(output.best[i]) : std::span<const sampling::TokenLogprob>();
    lists.add(id, logprob, top_of(lists, best, id, logprob));
  }
}

// vLLM's form: for each id of the prompt {"id": {"logprob": …, "decoded_token": …}, …}, with the best ids and the id
// itself, and null for the first id.
ordered_json prompt_logprobs_json(const CompletionRequest& request, std::span<const TokenId> ids,
                                  const JobResult& result) {
  ordered_json list = ordered_json::array();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i == 0 || i > result.prompt_logprobs.size()) {
      list.push_back(nullptr);
      continue;
    }
    ordered_json& place = list.emplace_back(ordered_json::object());
    const auto add = [&](TokenId id, float logprob) {
      place[std::to_string(id)] = {{"logprob", json_logprob(logprob)},
                                   {"decoded_token", request.model.texts->text(id)}};
    };
    for (const sampling::TokenLogprob& token : best_in_prompt(result, i, *request.prompt_logprobs)) {
      add(token.id, token.logprob);
    }
    add(ids[i], result.prompt_logprobs[i - 1]);
  }
  return list;
}

}  // namespace

int count_outputs(const CompletionRequest& request, const JobResult& result) {
  if (!request.is_shared()) return 1;
  if (result.hypotheses.empty()) return request.n;
  return std::min(request.n, static_cast<int>(result.hypotheses.size()));
}

Output output_of(const CompletionRequest& request, const JobResult& result, int i) {
  if (!request.is_shared() || result.hypotheses.empty() || i == 0) {
    return {result.text, result.ids, result.finish_reason, result.logprobs, result.best};
  }
  const protocol::Hypothesis& hypothesis = result.hypotheses[static_cast<size_t>(i)];
  return {hypothesis.text, hypothesis.ids, hypothesis.finish_reason};
}

ordered_json choice_facts(const CompletionRequest& request, size_t prompt, const JobResult& result,
                          const Output& output) {
  ordered_json facts;
  facts["logprobs"] = request.logprobs ? logprobs_json(request, prompt, result, output) : ordered_json();
  facts["finish_reason"] = finish_word(output.finish_reason);
  facts["stop_reason"] = stop_reason(request, output);
  const std::span<const TokenId> prompt_ids = ids_of_prompt(request, prompt, result);
  if (request.return_token_ids) {
    facts["token_ids"] = output.ids;
    facts["prompt_token_ids"] = prompt_ids;
  }
  if (request.prompt_logprobs) facts["prompt_logprobs"] = prompt_logprobs_json(request, prompt_ids, result);
  return facts;
}

ordered_json logprobs_json(const CompletionRequest& request, size_t prompt, const JobResult& result,
                           const Output& output) {
  if (output.logprobs.size() != output.ids.size()) return nullptr;  // hypotheses have one sum for all their ids
  LogprobLists lists(request);
  const int64_t start = request.echo ? count_characters(request.prompts[prompt].text) : 0;
  if (request.echo) {
    const std::span<const TokenId> ids = ids_of_prompt(request, prompt, result);
    add_prompt(request, ids, result, lists);
    lists.add_offsets(ids, 0, start);
  }
  add_output(output, lists);
  lists.add_offsets(output.ids, start, start + count_characters(output.text));
  return lists.take();
}

std::string_view finish_word(FinishReason reason) { return reason == FinishReason::kLength ? "length" : "stop"; }

ordered_json stop_reason(const CompletionRequest& request, const Output& output) {
  if (output.finish_reason != FinishReason::kStop || output.ids.empty()) return nullptr;
  const std::vector<TokenId>& stop_ids = request.job.rules.stop_ids;
  if (std::ranges::find(stop_ids, output.ids.back()) != stop_ids.end()) return output.ids.back();
  if (request.job.stop.size() == 1) return request.job.stop.front();
  if (request.model.text == nullptr) return nullptr;  // it is one of several, and it is not known which
  const std::string whole = request.model.text->streamer.decode_text(output.ids);
  std::string_view found;
  for (const std::string& stop : request.job.stop) {
    const bool is_there =
        request.job.include_stop
            ? output.text.ends_with(stop)
            : std::string_view(whole).substr(std::min(output.text.size(), whole.size())).starts_with(stop);
    if (is_there && stop.size() > found.size()) found = stop;
  }
  return found.empty() ? ordered_json() : ordered_json(found);
}

ordered_json usage_json(int64_t prompt_tokens, int64_t completion_tokens) {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens}};
}

ordered_json metrics_json(const JobResult& result) {
  const protocol::Timings& times = result.timings;
  const auto tokens = static_cast<double>(result.ids.size());
  const auto generation_ms = static_cast<double>(std::max<int64_t>(times.total_ms - times.first_token_ms, 0));
  return {{"queue_time_ms", times.queue_ms},
          {"time_to_first_token_ms", times.first_token_ms},
          {"generation_time_ms", generation_ms},
          {"mean_itl_ms", tokens > 1 ? ordered_json(generation_ms / (tokens - 1)) : ordered_json()},
          {"tokens_per_second",
           times.run_ms > 0 ? ordered_json(tokens * 1'000 / static_cast<double>(times.run_ms)) : ordered_json()}};
}

}  // namespace optserve::http_api
