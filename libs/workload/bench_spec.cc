#include "workload/bench_spec.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/input_check.h"
#include "base/limits.h"
#include "sampling/validate_params.h"

namespace optserve::workload {
namespace {

using nlohmann::json;

Refusal bad(const std::string& what) { return refuse(ErrorCode::kBadRequest, what); }

struct IntegerField {
  const char* name;
  int32_t BenchSpec::*member;
  int32_t min;
  int32_t max;
};
constexpr int32_t kTokensMax = static_cast<int32_t>(limits::kContextTokensMax);
constexpr std::array<IntegerField, 5> kIntegers = {{{"input_tokens", &BenchSpec::input_tokens, 1, kTokensMax},
                                                    {"shared_prefix", &BenchSpec::shared_prefix, 0, kTokensMax},
                                                    {"output_tokens", &BenchSpec::output_tokens, 1, kTokensMax},
                                                    {"warmup", &BenchSpec::warmup, 0, kRunsMax},
                                                    {"repeats", &BenchSpec::repeats, 1, kRunsMax}}};

// The seed is not part of the sampling parameters here, since each request has its own seed.
bool is_of_requests(const sampling::ParameterInfo& info) { return std::string_view(info.name) == "seed"; }

std::optional<int64_t> integer_of(const json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT32_MAX) return std::nullopt;
  const auto number = value.get<int64_t>();
  return number >= INT32_MIN ? std::optional(number) : std::nullopt;
}

Refusal wrong(const std::string& key, const json& value, const char* expected) {
  return bad("benchmark: " + key + ": expected " + expected + ", found " + value.dump());
}

Status read_integer(const std::string& key, const json& value, int32_t& field) {
  const auto number = integer_of(value);
  if (!number) return wrong(key, value, "an integer");
  field = static_cast<int32_t>(*number);
  return ok_status();
}

Status read_batches(const json& value, std::vector<int32_t>& batches) {
  if (!value.is_array() || value.size() > kRunsMax) return wrong("batches", value, "a list of integers");
  batches.clear();
  for (const json& entry : value) {
    if (Status status = read_integer("batches", entry, batches.emplace_back()); !status.ok()) return status;
  }
  return ok_status();
}

template <class T>
Status read_parameter(const sampling::ParameterInfo& info, const json& value, T& field) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) return wrong(info.name, value, "true or false");
    field = value.get<bool>();
  } else if constexpr (std::is_same_v<T, float>) {
    if (!value.is_number()) return wrong(info.name, value, "a number");
    field = value.get<float>();
  } else {
    int32_t number = 0;
    if (Status status = read_integer(info.name, value, number); !status.ok()) return status;
    field = static_cast<T>(number);
  }
  return ok_status();
}

Status read_sampling(const std::string& key, const json& value, sampling::SamplingParams& sampling) {
  std::optional<Status> read;
  sampling::for_each_parameter(sampling, [&](const sampling::ParameterInfo& info, auto& field) {
    if (key == info.name && !is_of_requests(info)) read = read_parameter(info, value, field);
  });
  return read ? *read : bad("benchmark: unknown key '" + key + "'");
}

Status read_field(const std::string& key, const json& value, BenchSpec& spec) {
  for (const IntegerField& field : kIntegers) {
    if (key == field.name) return read_integer(key, value, spec.*field.member);
  }
  if (key == "requests") return read_integer(key, value, spec.num_requests);
  if (key == "batches") return read_batches(value, spec.batches);
  if (key == "kind") {
    if (value != "latency" && value != "throughput") return wrong(key, value, "\"latency\" or \"throughput\"");
    spec.kind = value == "latency" ? BenchKind::kLatency : BenchKind::kThroughput;
    return ok_status();
  }
  if (key == "mixed_lengths") {
    if (!value.is_boolean()) return wrong(key, value, "true or false");
    spec.mixed_lengths = value.get<bool>();
    return ok_status();
  }
  if (key == "seed") {
    if (!value.is_number_unsigned()) return wrong(key, value, "an unsigned integer");
    spec.seed = value.get<uint64_t>();
    return ok_status();
  }
  return read_sampling(key, value, spec.sampling);
}

}  // namespace

std::string_view bench_kind_name(BenchKind kind) { return kind == BenchKind::kLatency ? "latency" : "throughput"; }

Status validate(const BenchSpec& spec) {
  for (const IntegerField& field : kIntegers) {
    if (Status status = check_range(field.name, spec.*field.member, field.min, field.max); !status.ok()) return status;
  }
  if (spec.kind == BenchKind::kLatency) {
    if (spec.batches.empty()) return bad("batches: expected at least one");
    if (spec.mixed_lengths) return bad("mixed_lengths: a latency benchmark has requests of one length");
    for (const int32_t batch : spec.batches) {
      if (Status status = check_range("batches", batch, 1, kBatchMax); !status.ok()) return status;
    }
  } else if (Status status = check_range("requests", spec.num_requests, 1, kRequestsMax); !status.ok()) {
    return status;
  }
  return sampling::validate(spec.sampling);
}

Status check_context(const BenchSpec& spec, const std::string& model, int64_t context) {
  const int64_t whole = int64_t{spec.input_tokens} + spec.output_tokens;
  if (spec.mixed_lengths || whole <= context) return ok_status();
  return bad("prompts of " + std::to_string(spec.input_tokens) + " tokens and " + std::to_string(spec.output_tokens) +
             " new ones exceed the context of " + std::to_string(context) + " tokens of model " + model);
}

json to_json(const BenchSpec& spec) {
  json root = {{"kind", bench_kind_name(spec.kind)}, {"seed", spec.seed}};
  for (const IntegerField& field : kIntegers) root[field.name] = spec.*field.member;
  sampling::for_each_parameter(spec.sampling, [&root](const sampling::ParameterInfo& info, auto value) {
    if (!is_of_requests(info)) root[info.name] = value;
  });
  if (spec.kind == BenchKind::kLatency) {
    root["batches"] = spec.batches;
  } else {
    root["requests"] = spec.num_requests;
    root["mixed_lengths"] = spec.mixed_lengths;
  }
  return root;
}

Result<BenchSpec> bench_spec_from_json(const json& root) {
  if (!root.is_object()) return bad("benchmark: expected a JSON object");
  BenchSpec spec;
  for (const auto& [key, value] : root.items()) {
    if (Status status = read_field(key, value, spec); !status.ok()) return status.refusal();
  }
  if (Status status = validate(spec); !status.ok()) return status.refusal();
  return spec;
}

Result<BenchSpec> read_bench_spec(const std::string& text_or_path) {
  std::string text = text_or_path;
  if (!text.starts_with('{')) {
    std::ifstream file(text_or_path);
    if (!file) return bad("benchmark: expected a JSON object or a file with one, found '" + text_or_path + "'");
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  const json root = json::parse(text, nullptr, false);
  if (root.is_discarded()) return bad("benchmark: '" + text_or_path.substr(0, 80) + "' is not JSON");
  return bench_spec_from_json(root);
}

}  // namespace optserve::workload
