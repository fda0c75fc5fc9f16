#include "protocol/validate.h"

#include "base/format_names.h"
#include "base/input_check.h"
#include "base/limits.h"
#include "base/trace_context.h"
#include "sampling/validate_params.h"

namespace optserve::protocol {
namespace {

Status check_prompt(const JobSpec& spec) {
  if (spec.prompt.empty() == spec.prompt_ids.empty()) {
    return refuse(ErrorCode::kBadRequest, spec.prompt.empty() ? "prompt: expected text or ids, found neither"
                                                              : "prompt: expected text or ids, found both");
  }
  if (spec.prompt.size() > limits::kPromptBytesMax) {
    return refuse(ErrorCode::kPromptTooLong, "prompt: " + std::to_string(spec.prompt.size()) + " bytes, at most " +
                                                 std::to_string(limits::kPromptBytesMax) + " are allowed");
  }
  if (spec.prompt_ids.size() > limits::kContextTokensMax) {
    return refuse(ErrorCode::kPromptTooLong, "prompt_ids: " + std::to_string(spec.prompt_ids.size()) +
                                                 " ids, at most " + std::to_string(limits::kContextTokensMax) +
                                                 " are allowed");
  }
  for (const TokenId id : spec.prompt_ids) {
    if (id < 0) return refuse(ErrorCode::kBadRequest, "prompt_ids: negative id " + std::to_string(id));
  }
  return ok_status();
}

// Checks a list of short texts; `what` is the word for one of them.
Status check_texts(const std::string& field, const std::string& what, const std::vector<std::string>& texts,
                   size_t count_max) {
  if (Status s = check_range(field + ": number of " + what + "s", texts.size(), 0, count_max); !s.ok()) return s;
  const std::string bytes = field + ": bytes of a " + what;
  for (const std::string& text : texts) {
    if (Status s = check_range(bytes, text.size(), 1, limits::kStopStringBytesMax); !s.ok()) return s;
  }
  return ok_status();
}

Status check_generate(const JobSpec& spec) {
  if (spec.convert) return refuse(ErrorCode::kBadRequest, "convert: expected in conversion jobs only");
  if (Status s = check_name("model", spec.model, 1, limits::kModelNameBytesMax); !s.ok()) return s;
  if (Status s = check_prompt(spec); !s.ok()) return s;
  if (Status s = sampling::validate(spec.sampling); !s.ok()) return s;
  if (Status s = sampling::validate(spec.rules, 0); !s.ok()) return s;
  const int32_t least = spec.prompt_logprobs ? 0 : 1;  // 0 means that the prompt is only scored
  if (Status s = check_range("max_new_tokens", spec.max_new_tokens, least, limits::kContextTokensMax); !s.ok()) {
    return s;
  }
  if (Status s = check_range("prompt_best", spec.prompt_best, 0, limits::kTopLogprobsMax); !s.ok()) return s;
  if (spec.prompt_best > 0 && !spec.prompt_logprobs) {
    return refuse(ErrorCode::kBadRequest,
                  "prompt_best is " + std::to_string(spec.prompt_best) + ", expected 0 without prompt_logprobs");
  }
  if (Status s = check_texts("bad_words", "word", spec.bad_words, limits::kBadWordsMax); !s.ok()) return s;
  if (spec.sampling.is_beam_search() && spec.prompt_logprobs) {
    return refuse(ErrorCode::kBadRequest,
                  "prompt_logprobs is not possible with a beam search; score the prompt in a job of its own");
  }
  return check_texts("stop", "string", spec.stop, limits::kStopStringsMax);
}

Status check_convert(const JobSpec& spec) {
  if (!spec.convert) {
    return refuse(ErrorCode::kBadRequest, "convert: a conversion job must name a source and a destination");
  }
  for (const std::string* path : {&spec.convert->source, &spec.convert->destination}) {
    if (path->empty() || path->size() > 4096 || path->find('\0') != std::string::npos) {
      return refuse(ErrorCode::kBadRequest, "convert: source and destination: expected 1 to 4096 bytes without NUL");
    }
  }
  static constexpr auto kDtypes = with_words({"keep"}, kDtypeNames);
  static constexpr auto kQuantisations = with_words({"none"}, kQuantisationNames);
  if (Status s = check_choice("convert: dtype", spec.convert->dtype, kDtypes); !s.ok()) return s;
  const std::string& quantize = spec.convert->quantize;
  if (Status s = check_choice("convert: quantize", quantize, kQuantisations); !quantize.empty() && !s.ok()) return s;
  return check_range("convert: shards", spec.convert->shards, 0, limits::kWorldSizeMax);
}

Status check_known(const std::string& what, const std::vector<std::string>& unknown_fields) {
  if (unknown_fields.empty()) return ok_status();
  std::string names;
  for (const std::string& name : unknown_fields) names += (names.empty() ? "'" : "', '") + name;
  return refuse(ErrorCode::kBadRequest,
                what + " has no field " + names + "' (docs/protocol.md and docs/parameters.md)");
}

}  // namespace

Status validate(const JobSpec& spec) {
  if (Status s = check_known("a job", spec.unknown_fields); !s.ok()) return s;
  if (spec.convert) {
    if (Status s = check_known("a conversion", spec.convert->unknown_fields); !s.ok()) return s;
  }
  if (Status s = check_name("key", spec.key, 1, limits::kKeyBytesMax); !s.ok()) return s;
  if (Status s = check_name("tenant", spec.tenant, 0, limits::kTenantBytesMax); !s.ok()) return s;
  if (Status s = check_range("priority", spec.priority, 0, limits::kPriorityMax); !s.ok()) return s;
  if (Status s = check_range("max_attempts", spec.max_attempts, 1, limits::kAttemptsMax); !s.ok()) return s;
  if (Status s = check_range("ttl_ms", spec.ttl_ms, limits::kJobTtlMsMin, limits::kJobTtlMsMax); !s.ok()) return s;
  if (Status s = check_name("group", spec.group, 0, limits::kGroupBytesMax); !s.ok()) return s;
  if (Status s = check_range("delay_ms", spec.delay_ms, 0, limits::kJobDelayMsMax); !s.ok()) return s;
  if (Status s = check_range("queue_ms", spec.queue_ms, 0, limits::kJobTtlMsMax); !s.ok()) return s;
  if (Status s = check_range("run_ms", spec.run_ms, 0, limits::kJobTtlMsMax); !s.ok()) return s;
  if (Status s = check_range("result_ttl_ms", spec.result_ttl_ms, 0, limits::kResultTtlMsMax); !s.ok()) return s;
  if (!spec.traceparent.empty() && !is_traceparent(spec.traceparent)) {
    return refuse(ErrorCode::kBadRequest, "traceparent: expected the form of W3C Trace Context, version 00");
  }
  return spec.kind == JobKind::kConvert ? check_convert(spec) : check_generate(spec);
}

}  // namespace optserve::protocol
