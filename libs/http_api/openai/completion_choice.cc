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

  // `start` characters stand before the ids' own text; nothing begins behind the end of the whole text.
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

void add_prompt(const CompletionRequest& request, std::span<const TokenId> ids, const JobResult& result,
                LogprobLists& lists) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i == 0 || i > result.prompt_logprobs.size()) {
      lists.add(ids[i], nullptr, nullptr);
      continue;
    }
    const double logprob = json_logprob(result.prompt_logprobs[i - 1]);
    lists.add(ids[i], logprob, request.logprobs == 0 ? ordered_json{{lists.name(ids[i]), logprob}} : ordered_json());
  }
}

void add_output(const Output& output, LogprobLists& lists) {
  for (size_t i = 0; i < output.ids.size(); ++i) {
    const TokenId id = output.ids[i];
    const double logprob = json_logprob(output.logprobs[i]);
    ordered_json top = ordered_json::object();
    if (i < output.best.size()) {
      for (const sampling::TokenLogprob& token : output.best[i]) {
        top[lists.name(token.id)] = json_logprob(token.logprob);
      }
    }
    const std::string drawn = lists.name(id);
    if (!top.contains(drawn)) top[drawn] = logprob;
    lists.add(id, logprob, std::move(top));
  }
}

// vLLM's form: for each id of the prompt {"id": {"logprob": …, "decoded_token": …}}, and null for the first.
ordered_json prompt_logprobs_json(const CompletionRequest& request, std::span<const TokenId> ids,
                                  const JobResult& result) {
  ordered_json list = ordered_json::array();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i == 0 || i > result.prompt_logprobs.size()) {
      list.push_back(nullptr);
      continue;
    }
    const ordered_json token{{"logprob", json_logprob(result.prompt_logprobs[i - 1])},
                             {"decoded_token", request.model.texts->text(ids[i])}};
    list.push_back({{std::to_string(ids[i]), token}});
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
  if (request.wants_prompt_logprobs) facts["prompt_logprobs"] = prompt_logprobs_json(request, prompt_ids, result);
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
  if (request.model.text == nullptr) return nullptr;  // it is one of several, and not part of the text
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
