// The beam searches of the planner. In each round every running beam is a sequence with one new token.
#include <algorithm>
#include <string>
#include <utility>

#include "base/limits.h"
#include "batching/planner_impl.h"

namespace optserve::batching {

std::vector<TokenId> Planner::Impl::ends_of(const SequenceRequest& request) const {
  std::vector<TokenId> ends = request.rules.stop_ids;
  if (!request.sampling.ignore_eos) ends.push_back(options.eos);
  return ends;
}

Status Planner::Impl::admissible_beams(const SequenceRequest& request) const {
  const int32_t width = request.sampling.beam_width;
  if (BeamSearch::candidates_wanted(width, ends_of(request).size()) > limits::kTopLogprobsMax) {
    return refuse(ErrorCode::kBadRequest,
                  "beam_width " + std::to_string(width) + ", together with " + std::to_string(ends_of(request).size()) +
                      " ids that end the output, needs more than the " + std::to_string(limits::kTopLogprobsMax) +
                      " best tokens that a position can have");
  }
  const int64_t room = std::min<int64_t>(int64_t{request.prompt_tokens} + request.max_new_tokens, options.max_context) -
                       static_cast<int64_t>(request.tokens.size());
  if (room < 1 || request.prompt_logprobs) {
    return refuse(
        ErrorCode::kBadRequest,
        "beam_width needs room for at least one new token in the context, and cannot be used with prompt_logprobs");
  }
  return ok_status();
}

void Planner::Impl::add_beams(SequenceRequest request) {
  const auto given = static_cast<int32_t>(request.tokens.size());
  const int64_t wanted = int64_t{request.prompt_tokens} + request.max_new_tokens;
  const auto tokens_max = static_cast<int32_t>(std::min<int64_t>(wanted, options.max_context)) - given;
  BeamSearch search(request.sampling, ends_of(request), tokens_max);
  const SequenceId id = request.id;
  extend_beams(beams.emplace(id, BeamRun{std::move(request), std::move(search), next_serial++}).first->second);
}

// The new beams wait in front of everything that arrived after their search, so that the search keeps its place.
void Planner::Impl::extend_beams(BeamRun& run) {
  const auto& running_beams = run.search.running();
  run.missing = running_beams.size();
  run.candidates.assign(running_beams.size(), {});
  for (size_t i = 0; i < running_beams.size(); ++i) {
    SequenceRequest request = run.request;
    request.tokens.insert(request.tokens.end(), running_beams[i].tokens.begin(), running_beams[i].tokens.end());
    request.max_new_tokens = static_cast<int32_t>(request.tokens.size()) - request.prompt_tokens + 1;
    request.sampling.temperature = 0;
    request.sampling.logprobs = BeamSearch::candidates_wanted(request.sampling.beam_width, ends_of(run.request).size());
    const auto it =
        waiting.emplace(place_of(waiting, run.age), std::move(request), next_serial++, pool, options.max_context);
    it->age = run.age;
    it->beam = static_cast<int32_t>(i);
    by_serial.emplace(it->serial, it);
  }
}

void Planner::Impl::apply_beam(Iterator sequence, SampledToken sampled, std::vector<SequenceEvent>& events) {
  const SequenceId id = sequence->request.id;
  const auto beam = static_cast<size_t>(sequence->beam);
  BeamRun& run = beams.at(id);
  if (!sampled.finite) {
    events.push_back(failed(sequence->request, run.request));
    drop_beams(id);
    return;
  }
  --sequence->pending;
  erase(sequence);
  run.candidates[beam] = std::move(sampled.best);
  if (--run.missing > 0) return;
  run.search.advance(run.candidates);
  if (!run.search.running().empty()) return extend_beams(run);
  report_beams(run, events);
  beams.erase(id);
}

void Planner::Impl::report_beams(BeamRun& run, std::vector<SequenceEvent>& events) const {
  const auto reason = [this](const BeamSearch::Beam& beam) {
    if (beam.ended_by < 0) return sampling::FinishReason::kLength;
    return ends_text(options, beam.ended_by) ? sampling::FinishReason::kEndOfText : sampling::FinishReason::kStop;
  };
  const auto& ended = run.search.ended();
  check(!ended.empty(), "a beam search ends with a hypothesis");
  const BeamSearch::Beam& best = ended.front();
  for (size_t i = 0; i < best.tokens.size(); ++i) {
    SequenceEvent& event = events.emplace_back();
    event.id = run.request.id;
    event.position = static_cast<int32_t>(run.request.tokens.size() + i);
    event.token = best.tokens[i];
    event.logprob = best.logprobs[i];
  }
  events.back().finished = reason(best);
  for (const BeamSearch::Beam& beam : ended) {
    Hypothesis hypothesis{{}, beam.sum, beam.score, reason(beam)};
    hypothesis.tokens.assign(run.request.tokens.begin() + run.request.prompt_tokens, run.request.tokens.end());
    hypothesis.tokens.insert(hypothesis.tokens.end(), beam.tokens.begin(), beam.tokens.end());
    events.back().hypotheses.push_back(std::move(hypothesis));
  }
}

void Planner::Impl::drop_beams(SequenceId id) {
  for (Sequences* list : {&waiting, &running, &draining}) {
    for (auto it = list->begin(); it != list->end();) {
      const auto sequence = it++;
      if (sequence->beam >= 0 && sequence->request.id == id) erase(sequence);
    }
  }
  beams.erase(id);
}

}  // namespace optserve::batching
