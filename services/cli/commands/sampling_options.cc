#include "cli/commands/sampling_options.h"

#include <algorithm>
#include <charconv>
#include <type_traits>

#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "sampling/validate_params.h"

namespace optserve::cli {
namespace {

[[noreturn]] void fail_usage(const std::string& option, const std::string& expected, const std::string& found) {
  throw CommandFailure{kExitUsage, option + " is '" + found + "', expected " + expected};
}

template <class T>
T read_number(const std::string& option, const std::string& expected, std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) fail_usage(option, expected, std::string(text));
  return value;
}

sampling::TokenBias read_bias(const std::string& text) {
  constexpr const char* kExpected = "id=bias, as in 50118=-2.5";
  const size_t equals = text.find('=');
  if (equals == std::string::npos) fail_usage("logit-bias", kExpected, text);
  return {read_number<TokenId>("logit-bias", kExpected, std::string_view(text).substr(0, equals)),
          read_number<float>("logit-bias", kExpected, std::string_view(text).substr(equals + 1))};
}

// What FasterTransformer, Metaseq, vLLM, transformers and the OpenAI API call these parameters; docs/coming_from.md has
// the list for readers.
struct OtherName {
  std::string_view option, name;
};
constexpr OtherName kOtherNames[] = {
    {"top-k", "runtime-top-k"},
    {"top-p", "runtime-top-p"},
    {"min-new-tokens", "min-tokens"},
    {"min-new-tokens", "min-length"},
    {"seed", "random-seed"},
    {"beam-width", "num-beams"},
    {"beam-length-penalty", "length-penalty"},
    {"beam-length-penalty", "len-penalty"},
    {"beam-diversity", "beam-search-diversity-rate"},
    {"beam-diversity", "diversity-rate"},
};

// The parameters that most people set; the others are marked as rare.
constexpr std::string_view kUsualParameters[] = {"temperature", "top_k",    "top_p",     "repetition_penalty",
                                                 "seed",        "logprobs", "beam_width"};

template <class Wanted>
void add_parameters(ConfigParser& parser, sampling::SamplingParams& params, Wanted&& is_wanted) {
  sampling::for_each_parameter(params, [&](const sampling::ParameterInfo& info, auto& field) {
    if constexpr (!std::is_enum_v<std::remove_reference_t<decltype(field)>>) {
      std::string name = info.name;
      std::ranges::replace(name, '_', '-');
      if (!is_wanted(info.name)) return;
      ConfigOption option = parser.add(name, field, info.help);
      for (const OtherName& other : kOtherNames) {
        if (other.option == name) option.also({other.name});
      }
      if (std::ranges::find(kUsualParameters, info.name) == std::end(kUsualParameters)) parser.mark_rare({name});
    }
  });
}

}  // namespace

std::vector<TokenId> read_ids(const char* option, const std::string& text) {
  std::vector<TokenId> ids;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    ids.push_back(
        read_number<TokenId>(option, "ids separated by commas", std::string_view(text).substr(begin, end - begin)));
    begin = end + 1;
  }
  return ids;
}

void add_options(ConfigParser& parser, SamplingOptions& options) {
  parser.begin_group("Sampling and beam search");
  add_parameters(parser, options.params, [](std::string_view) { return true; });
  parser.add("profile", options.profile,
             "System whose sampling is imitated where systems differ: default, fastertransformer or metaseq");
  parser.add("logit-bias", options.logit_bias,
             "id=bias: number from -100 to 100 that is added to the id's logit; repeatable");
  parser.add("allowed-ids", options.allowed_ids, "Ids, separated by commas; only these are drawn");
  parser.add("stop-ids", options.stop_ids, "Ids, separated by commas, that end the output").also({"stop-token-ids"});
  parser.add("top-p-reset-ids", options.top_p_reset_ids,
             "Ids, separated by commas, after which top-p starts again at its first value");
  parser.add("bad-word", options.bad_words, "Text that the output must not contain; repeatable");
  parser.add("bad-word-ids", options.bad_word_ids, "The same, as ids separated by commas; repeatable");
  parser.mark_rare({"profile", "logit-bias", "allowed-ids", "stop-ids", "top-p-reset-ids", "bad-word", "bad-word-ids"});
  parser.begin_group("Options");
}

void add_benchmarked_parameters(ConfigParser& parser, sampling::SamplingParams& params) {
  add_parameters(parser, params, [](std::string_view name) {
    return name != "seed" && name != "ignore_eos" && name != "min_new_tokens";
  });
}

void apply(const SamplingOptions& options, protocol::JobSpec& job) {
  job.sampling = options.params;
  const auto profile = sampling::parse_sampling_profile(options.profile);
  if (!profile.ok()) throw CommandFailure{kExitUsage, profile.refusal().message};
  job.sampling.profile = profile.value();
  for (const std::string& bias : options.logit_bias) job.rules.logit_bias.push_back(read_bias(bias));
  job.rules.allowed_ids = read_ids("allowed-ids", options.allowed_ids);
  job.rules.stop_ids = read_ids("stop-ids", options.stop_ids);
  job.rules.top_p_reset_ids = read_ids("top-p-reset-ids", options.top_p_reset_ids);
  for (const std::string& word : options.bad_word_ids) job.rules.bad_words.push_back(read_ids("bad-word-ids", word));
  job.bad_words = options.bad_words;
}

}  // namespace optserve::cli
