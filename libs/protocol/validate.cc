#include "protocol/validate.h"

#include <algorithm>
#include <iterator>

#include "base/limits.h"
#include "sampling/validate_params.h"

namespace optserve::protocol {
namespace {

bool is_name(std::string_view text) {
  for (const char c : text) {
    const bool allowed =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    if (!allowed) return false;
  }
  return true;
}

Status check_name(const char* field, std::string_view value, size_t min, size_t max) {
  if (value.size() < min || value.size() > max || !is_name(value)) {
    return refuse(ErrorCode::kBadRequest, std::string(field) + ": expected " + std::to_string(min) + " to " +
                                              std::to_string(max) + " characters of [A-Za-z0-9._-], found " +
                                              std::to_string(value.size()) + " bytes");
  }
  return ok_status();
}

Status check_range(const char* field, int64_t value, int64_t min, int64_t max) {
  if (value < min || value > max) {
    return refuse(ErrorCode::kBadRequest, std::string(field) + ": expected " + std::to_string(min) + " to " +
                                              std::to_string(max) + ", found " + std::to_string(value));
  }
  return ok_status();
}

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

Status check_stop(const JobSpec& spec) {
  if (spec.stop.size() > limits::kStopStringsMax) {
    return refuse(ErrorCode::kBadRequest, "stop: " + std::to_string(spec.stop.size()) + " strings, at most " +
                                              std::to_string(limits::kStopStringsMax) + " are allowed");
  }
  for (const std::string& stop : spec.stop) {
    if (Status s =
            check_range("stop: bytes of one string", static_cast<int64_t>(stop.size()), 1, limits::kStopStringBytesMax);
        !s.ok()) {
      return s;
    }
  }
  return ok_status();
}

Status check_bad_words(const JobSpec& spec) {
  if (Status s = check_range("bad_words: words", static_cast<int64_t>(spec.bad_words.size()), 0, limits::kBadWordsMax);
      !s.ok()) {
    return s;
  }
  for (const std::string& word : spec.bad_words) {
    const auto bytes = static_cast<int64_t>(word.size());
    if (Status s = check_range("bad_words: bytes of one word", bytes, 1, limits::kStopStringBytesMax); !s.ok())
      return s;
  }
  return ok_status();
}

Status check_generate(const JobSpec& spec) {
  if (spec.convert) return refuse(ErrorCode::kBadRequest, "convert: expected in conversion jobs only");
  if (Status s = check_name("model", spec.model, 1, limits::kModelNameBytesMax); !s.ok()) return s;
  if (Status s = check_prompt(spec); !s.ok()) return s;
  if (Status s = optserve::validate(spec.sampling); !s.ok()) return s;
  if (Status s = optserve::validate(spec.rules, 0); !s.ok()) return s;
  const int64_t least = spec.prompt_logprobs ? 0 : 1;  // 0: the prompt is only scored
  if (Status s = check_range("max_new_tokens", spec.max_new_tokens, least, limits::kContextTokensMax); !s.ok()) {
    return s;
  }
  if (Status s = check_bad_words(spec); !s.ok()) return s;
  if (spec.sampling.is_beam_search() && spec.prompt_logprobs) {
    return refuse(ErrorCode::kBadRequest,
                  "prompt_logprobs: expected without a beam search; score the prompt by a job of its own");
  }
  return check_stop(spec);
}

Status check_convert(const JobSpec& spec) {
  if (!spec.convert)
    return refuse(ErrorCode::kBadRequest, "convert: a conversion job names a source and a destination");
  for (const std::string* path : {&spec.convert->source, &spec.convert->destination}) {
    if (path->empty() || path->size() > 4096 || path->find('\0') != std::string::npos) {
      return refuse(ErrorCode::kBadRequest, "convert: source and destination: expected 1 to 4096 bytes without NUL");
    }
  }
  const std::string& dtype = spec.convert->dtype;
  if (dtype != "fp32" && dtype != "fp16" && dtype != "bf16" && dtype != "keep") {
    return refuse(ErrorCode::kBadRequest,
                  "convert: dtype: expected fp32, fp16, bf16 or keep, found " +
                      (is_name(dtype) && dtype.size() <= 16 ? "'" + dtype + "'" : "other text"));
  }
  constexpr std::string_view kQuantisations[] = {"", "none", "int8", "int8-mse", "fp8", "int4"};
  if (std::ranges::find(kQuantisations, spec.convert->quantize) == std::end(kQuantisations))
    return refuse(ErrorCode::kBadRequest, "convert: quantize: expected none, int8, int8-mse, fp8 or int4");
  return check_range("convert: shards", spec.convert->shards, 0, limits::kWorldSizeMax);
}

}  // namespace

Status validate(const JobSpec& spec) {
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
  return spec.kind == JobKind::kConvert ? check_convert(spec) : check_generate(spec);
}

}  // namespace optserve::protocol
