// For tests and fuzzers: models without files, and results of jobs.
#pragma once

#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "http_api/openai/completion_request.h"
#include "http_api/openai/models.h"
#include "protocol/client_messages.h"
#include "tokenizer/small_vocabulary.h"

namespace optserve::http_api {

inline constexpr int32_t kTestContext = 64, kTestVocab = 300;

// "story" has a vocabulary (tokenizer/small_vocabulary.h), 300 rows and a context of 64; "plain" is served, but nothing
// more is known about it.
inline Models test_models(const std::string& name = "story") {
  std::vector<std::unique_ptr<model_text::ServedModel>> loaded;
  protocol::ModelInfo info;
  info.name = name;
  info.manifest_digest = std::string(64, 'a');
  info.context = kTestContext;
  info.vocab = kTestVocab;
  loaded.push_back(std::make_unique<model_text::ServedModel>(std::move(info), tokenizer::story_vocabulary().make(), 2));
  Models models(std::move(loaded), 1'700'000'000);
  models.set_served({name, "plain"});
  return models;
}

inline RequestContext test_context() { return {.request_id = "r1", .created = 1'700'000'001, .random = 12'345}; }

// The result of a job of the request with the output `ids`: its text, log-probabilities and everything else that was
// requested.
inline protocol::JobResult test_result(const CompletionRequest& request, const protocol::JobSpec& job,
                                       std::vector<TokenId> ids, const Model& model) {
  protocol::JobResult result;
  result.job = JobId{{1, 2, 3}};
  result.state = protocol::JobState::kSucceeded;
  result.finish_reason =
      !ids.empty() && ids.back() == 2 ? sampling::FinishReason::kEndOfText : sampling::FinishReason::kLength;
  result.text = model.text->streamer.decode_text(ids);
  std::vector<TokenId> prompt = job.prompt_ids;
  if (prompt.empty()) {
    prompt = {2};
    check(model.text->encoder.encode(job.prompt, prompt).ok(), "the prompt is text");
  }
  result.prompt_tokens = static_cast<int32_t>(prompt.size());
  if (request.job.prompt_logprobs) {
    result.prompt_ids = prompt;
    for (size_t i = 1; i < prompt.size(); ++i) result.prompt_logprobs.push_back(-0.5f * static_cast<float>(i));
    for (size_t i = 1; i < prompt.size() && job.prompt_best > 0; ++i) {
      std::vector<sampling::TokenLogprob>& best = result.prompt_best.emplace_back();
      for (int k = 0; k < job.prompt_best; ++k) {
        best.push_back({static_cast<TokenId>(40 + k), -0.25f - static_cast<float>(k)});
      }
    }
  }
  for (size_t i = 0; i < ids.size() && job.sampling.logprobs >= 0; ++i) {
    result.logprobs.push_back(-1.0f - static_cast<float>(i));
    std::vector<sampling::TokenLogprob>& best = result.best.emplace_back();
    for (int k = 0; k < job.sampling.logprobs; ++k) {
      best.push_back({static_cast<TokenId>(40 + k), -0.25f - static_cast<float>(k)});
    }
  }
  result.ids = std::move(ids);
  result.timings = {.encode_ms = 1, .queue_ms = 2, .first_token_ms = 10, .run_ms = 50, .total_ms = 60};
  return result;
}

}  // namespace optserve::http_api
