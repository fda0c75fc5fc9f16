#include "http_api/jobs/job_fields.h"

#include <algorithm>
#include <array>
#include <deque>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "base/input_check.h"
#include "base/limits.h"
#include "sampling/validate_params.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using protocol::JobSpec;

// What the protocol does not say about the fields that are not sampling parameters.
struct Meaning {
  std::string_view name;
  std::string_view help;
  double min = 0, max = 0;
};
constexpr double kTtlMax = limits::kJobTtlMsMax;
constexpr std::array kMeanings = {
    Meaning{"key", "Idempotency key of [A-Za-z0-9._-]; also as header `Idempotency-Key`, for one job"},
    Meaning{"tenant", "Whose share of the queue it uses, where the API key does not say it"},
    Meaning{"model", "Name of the model; may be left out where only one is served"},
    Meaning{"prompt", "The text; or `prompt_ids`"},
    Meaning{"prompt_ids", "The prompt as ids, the leading `</s>` (2) included"},
    Meaning{"profile", "Whose order and formulas sampling follows: default, fastertransformer or metaseq"},
    Meaning{"max_new_tokens", "Most tokens of output; 0 with `prompt_logprobs` only scores the prompt", 0,
            limits::kContextTokensMax},
    Meaning{"stop", "Up to 16 texts of 1 to 64 bytes; each ends the output"},
    Meaning{"prompt_logprobs", "Also give the log-probability of each id of the prompt"},
    Meaning{"prompt_best", "With `prompt_logprobs`: also give this many of the best ids at each place of the prompt", 0,
            limits::kTopLogprobsMax},
    Meaning{"priority", "Higher ones start first", 0, limits::kPriorityMax},
    Meaning{"max_attempts", "The job is dead when so many attempts have lost their worker", 1, limits::kAttemptsMax},
    Meaning{"ttl_ms", "Time after which the job expires", limits::kJobTtlMsMin, kTtlMax},
    Meaning{"result_ttl_ms", "How long the result can be fetched", 0, limits::kResultTtlMsMax},
    Meaning{"convert", "A conversion instead of a generation; for operators"},
    Meaning{"group", "Jobs that are watched and cancelled together"},
    Meaning{"delay_ms", "Time before which it does not start", 0, limits::kJobDelayMsMax},
    Meaning{"queue_ms", "Time within which it must start; 0: any", 0, kTtlMax},
    Meaning{"run_ms", "Longest time of one attempt; 0: any", 0, kTtlMax},
    Meaning{"on_disconnect", "continue, or cancel: when nobody follows the job any more"},
    Meaning{"allowed_ids", "Only these ids are drawn"},
    Meaning{"logit_bias", "Added to the logits of these ids; at -100 an id is not drawn"},
    Meaning{"bad_word_ids", "Sequences of ids that are not written"},
    Meaning{"stop_ids", "Up to 16 ids that end the output"},
    Meaning{"top_p_reset_ids", "`top_p` starts again after one"},
    Meaning{"bad_words", "Up to 64 texts that are not written"},
    Meaning{"include_stop", "What ended the output is part of its text"},
    Meaning{"traceparent",
            "The trace that it belongs to, in the form of W3C Trace Context; by default the request's header"},
    Meaning{"source", "Folder, file or glob of a foreign checkpoint, where the converter runs"},
    Meaning{"destination", "Folder to create there"},
    Meaning{"dtype", "Type of the numbers that are written, or keep"},
    Meaning{"shards", "0: the converter chooses", 0, limits::kWorldSizeMax},
    Meaning{"quantize", "Format of the matrices"},
    Meaning{"verify", "Compare the result with the source"}};

constexpr std::string_view kContinue = "continue", kCancel = "cancel";
std::string_view word_of(protocol::OnDisconnect value) {
  return value == protocol::OnDisconnect::kCancel ? kCancel : kContinue;
}
std::string_view word_of(sampling::SamplingProfile value) { return sampling::sampling_profile_name(value); }

// On the wire, fields that a receiver must know are marked with '!'.
std::string_view bare(std::string_view name) { return name.starts_with('!') ? name.substr(1) : name; }

template <class T>
inline constexpr bool kIsWord =
    std::is_same_v<T, protocol::OnDisconnect> || std::is_same_v<T, sampling::SamplingProfile>;

class TableBuilder {
 public:
  template <class T>
  void operator()(std::string_view wire_name, const T& value) {
    // Other than OnDisconnect and SamplingProfile: whether it is a conversion is said by `convert`.
    if constexpr (!std::is_same_v<T, protocol::JobKind>) {
      FieldInfo field{.name = bare(wire_name), .kind = kind_of<T>()};
      describe(field);
      if constexpr (kIsWord<T>) {
        field.fallback = keep(json(word_of(value)).dump());
      } else if constexpr (std::is_same_v<T, std::optional<protocol::ConvertSpec>>) {
        TableBuilder members;
        protocol::visit_fields(protocol::ConvertSpec{}, members);
        field.members = std::move(members.table_);
      } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
        field.fallback = keep(json(value).dump());
      } else if constexpr (std::is_same_v<T, std::vector<sampling::TokenBias>>) {
        field.fallback = "{}";
      } else {
        field.fallback = "[]";
      }
      table_.push_back(std::move(field));
    }
  }
  FieldTable take() { return std::move(table_); }

 private:
  template <class T>
  static constexpr FieldKind kind_of() {
    if (kIsWord<T> || std::is_same_v<T, std::string>) return FieldKind::kString;
    if (std::is_same_v<T, bool>) return FieldKind::kBoolean;
    if (std::is_same_v<T, uint64_t>) return FieldKind::kSeed;
    if (std::is_integral_v<T>) return FieldKind::kInteger;
    if (std::is_floating_point_v<T>) return FieldKind::kNumber;
    if (std::is_same_v<T, std::vector<std::string>>) return FieldKind::kStringList;
    if (std::is_same_v<T, std::vector<TokenId>>) return FieldKind::kIdList;
    if (std::is_same_v<T, std::vector<std::vector<TokenId>>>) return FieldKind::kIdLists;
    if (std::is_same_v<T, std::vector<sampling::TokenBias>>) return FieldKind::kBiases;
    return FieldKind::kObject;
  }

  static void describe(FieldInfo& field) {
    sampling::for_each_field([&](const sampling::ParameterInfo& info, auto) {
      if (field.name != info.name) return;
      field.help = info.help;
      field.min = info.min;
      field.max = info.max;
      field.min_excluded = info.min_excluded;
    });
    const auto found = std::ranges::find(kMeanings, field.name, &Meaning::name);
    if (found == kMeanings.end()) return;
    field.help = found->help;
    field.min = found->min;
    field.max = found->max;
  }

  // Keeps texts for tables, which hold views.
  static std::string_view keep(std::string text) {
    static std::deque<std::string> kept;
    return kept.emplace_back(std::move(text));
  }

  FieldTable table_;
};

class FieldSetter {
 public:
  explicit FieldSetter(const json& object) : object_(object) {}

  template <class T>
  void operator()(std::string_view wire_name, T& field) {
    const std::string_view name = bare(wire_name);
    if (!has_field(object_, name)) return;
    const json& value = *object_.find(name);
    if constexpr (std::is_same_v<T, protocol::JobKind>) {
    } else if constexpr (kIsWord<T>) {
      set_word(name, value.get<std::string>(), field);
    } else if constexpr (std::is_same_v<T, std::optional<protocol::ConvertSpec>>) {
      FieldSetter members(value);
      field.emplace().fields(members);
    } else if constexpr (std::is_same_v<T, std::vector<sampling::TokenBias>>) {
      field = read_biases(object_, name);
    } else if constexpr (std::is_same_v<T, uint64_t>) {
      field = value.is_number_unsigned() ? value.get<uint64_t>() : static_cast<uint64_t>(value.get<int64_t>());
    } else {
      field = value.get<T>();
    }
  }
  std::optional<ApiError> take_error() { return std::move(error_); }

 private:
  void set_word(std::string_view name, const std::string& word, protocol::OnDisconnect& field) {
    if (const Status status = check_choice(name, word, {kContinue, kCancel}); !status.ok()) {
      error_ = invalid_value(name, status.refusal().message);
    }
    field = word == kCancel ? protocol::OnDisconnect::kCancel : protocol::OnDisconnect::kContinue;
  }
  void set_word(std::string_view name, const std::string& word, sampling::SamplingProfile& field) {
    const Result<sampling::SamplingProfile> profile = sampling::parse_sampling_profile(word);
    if (profile.ok()) {
      field = profile.value();
    } else {
      error_ = invalid_value(name, profile.refusal().message);
    }
  }

  const json& object_;
  std::optional<ApiError> error_;
};

}  // namespace

const FieldTable& job_fields() {
  static const FieldTable kTable = [] {
    TableBuilder builder;
    protocol::visit_fields(JobSpec{}, builder);
    return builder.take();
  }();
  return kTable;
}

std::optional<ApiError> read_job_fields(const json& object, JobSpec& job) {
  FieldSetter setter(object);
  job.fields(setter);
  if (job.convert) job.kind = protocol::JobKind::kConvert;
  return setter.take_error();
}

}  // namespace optserve::http_api
