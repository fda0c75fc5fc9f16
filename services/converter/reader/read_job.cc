#include "converter/reader/read_job.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>

namespace optserve::converter {

std::vector<std::string> to_arguments(const ReadJob& job) {
  return {job.for_inspection ? "inspect" : "convert",
          job.input,
          job.name,
          std::to_string(job.num_heads),
          std::string(conversion::kOutputHeadNames[static_cast<size_t>(job.head)]),
          job.vocab_file,
          job.merges_file,
          std::string(conversion::kPromptTokensNames[static_cast<size_t>(job.prompt_tokens)])};
}

std::optional<ReadJob> parse_read_job(std::span<const char* const> arguments) {
  constexpr size_t kJobArguments = 8;
  if (arguments.size() != kJobArguments) return std::nullopt;
  ReadJob job;
  const std::string_view kind = arguments[0];
  job.for_inspection = kind == "inspect";
  job.input = arguments[1];
  job.name = arguments[2];
  const std::string_view heads = arguments[3];
  const auto [end, error] = std::from_chars(heads.data(), heads.data() + heads.size(), job.num_heads);
  const auto head = std::ranges::find(conversion::kOutputHeadNames, std::string_view(arguments[4]));
  job.head = static_cast<conversion::OutputHead>(head - conversion::kOutputHeadNames.begin());
  job.vocab_file = arguments[5];
  job.merges_file = arguments[6];
  const auto tokens = std::ranges::find(conversion::kPromptTokensNames, std::string_view(arguments[7]));
  job.prompt_tokens = static_cast<conversion::PromptTokens>(tokens - conversion::kPromptTokensNames.begin());
  const bool is_job = (kind == "convert" || kind == "inspect") && error == std::errc() &&
                      end == heads.data() + heads.size() && head != conversion::kOutputHeadNames.end() &&
                      tokens != conversion::kPromptTokensNames.end();
  return is_job ? std::optional(job) : std::nullopt;
}

}  // namespace optserve::converter
