#include "converter/source_reader.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "base/check.h"
#include "base/limits.h"

namespace optserve::converter {
namespace {

constexpr size_t kJobArguments = 6;

Refusal nonsense(const std::string& what) {
  return refuse(ErrorCode::kDataCorrupt, "the reader of the checkpoint answered nonsense: " + what);
}

}  // namespace

std::vector<std::string> to_arguments(const ReadJob& job) {
  return {job.for_inspection ? "inspect" : "convert", job.input,      job.name,
          std::to_string(job.num_heads),              job.vocab_file, job.merges_file};
}

std::optional<ReadJob> parse_read_job(std::span<const char* const> arguments) {
  if (arguments.size() != kJobArguments) return std::nullopt;
  ReadJob job;
  const std::string_view kind = arguments[0];
  job.for_inspection = kind == "inspect";
  job.input = arguments[1];
  job.name = arguments[2];
  const std::string_view heads = arguments[3];
  const auto [end, error] = std::from_chars(heads.data(), heads.data() + heads.size(), job.num_heads);
  job.vocab_file = arguments[4];
  job.merges_file = arguments[5];
  const bool is_job =
      (kind == "convert" || kind == "inspect") && error == std::errc() && end == heads.data() + heads.size();
  return is_job ? std::optional(job) : std::nullopt;
}

Result<SourceReader> SourceReader::open(const ReadJob& job, const ReaderSettings& settings) {
  std::vector<std::string> arguments = to_arguments(job);
  arguments.insert(arguments.begin(), {std::string(sandbox_mode_name(settings.sandbox)), std::to_string(getpid())});
  SourceReader source(std::make_unique<ReaderProcess>(settings, std::move(arguments)));
  const Result<Reply> reply = source.process_->ask({Question::kOpen});
  if (!reply.ok()) return reply.refusal();
  const auto shared = source.process_->window().first(reply.value().bytes);
  const std::vector<std::byte> bytes(shared.begin(), shared.end());
  Result<SourceSummary> summary = decode_summary(bytes);
  if (!summary.ok()) return summary.refusal();
  source.summary_ = std::move(summary).value();
  const SourceSummary& found = source.summary_;
  if (found.config && found.config->name != job.name) return nonsense("a model of another name");
  if (!job.for_inspection && (!found.config || !found.problem.empty())) return nonsense("no model, and no refusal");
  if (!found.problem.empty()) return source;
  for (const model_spec::TensorSpec& spec : model_spec::opt_tensors(*found.config))
    source.places_.emplace(spec.name, static_cast<uint32_t>(source.places_.size()));
  return source;
}

Status SourceReader::check_bytes(const model_spec::TensorSpec& spec) const {
  const Result<Reply> reply = process_->ask({Question::kCheckBytes, place_of(spec)});
  return reply.ok() ? ok_status() : Status(reply.refusal());
}

bool SourceReader::replicas_agree(const model_spec::TensorSpec& spec) const {
  const Result<Reply> reply = process_->ask({Question::kReplicasAgree, place_of(spec)});
  if (!reply.ok()) throw Error(reply.refusal().message);
  return reply.value().number != 0;
}

Status SourceReader::check_unchanged() const {
  const Result<Reply> reply = process_->ask({Question::kCheckUnchanged});
  return reply.ok() ? ok_status() : Status(reply.refusal());
}

void SourceReader::read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                             std::span<std::byte> out) const {
  const auto row_bytes = static_cast<uint64_t>(spec.cols) * tensor::dtype_bytes(dtype(spec));
  check_eq(out.size(), static_cast<size_t>(count) * row_bytes, "SourceReader::read_rows: bytes of " + spec.name);
  const auto rows_max = static_cast<int64_t>(kWindowBytes / row_bytes);
  check(rows_max > 0, "SourceReader::read_rows: a row that exceeds the window");
  for (int64_t done = 0; done < count;) {
    const int64_t rows = std::min(rows_max, count - done);
    const Result<Reply> reply = process_->ask({Question::kReadRows, place_of(spec), row + done, rows});
    if (!reply.ok()) throw Error(reply.refusal().message);
    const uint64_t bytes = static_cast<uint64_t>(rows) * row_bytes;
    if (reply.value().bytes != bytes) throw Error(nonsense("another number of bytes than rows have").message);
    std::memcpy(out.data() + static_cast<uint64_t>(done) * row_bytes, process_->window().data(), bytes);
    done += rows;
  }
}

Result<std::string> SourceReader::tokenizer_text(uint64_t begin, uint64_t bytes) const {
  std::string text(bytes, '\0');
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t count = std::min(kWindowBytes, bytes - done);
    const Result<Reply> reply = process_->ask(
        {Question::kTokenizerBytes, 0, static_cast<int64_t>(begin + done), static_cast<int64_t>(count)});
    if (!reply.ok()) return reply.refusal();
    if (reply.value().bytes != count) return nonsense("another number of bytes of the vocabulary");
    std::memcpy(text.data() + done, process_->window().data(), count);
    done += count;
  }
  return text;
}

Result<std::optional<TokenizerFiles>> SourceReader::tokenizer() const {
  const Result<Reply> reply = process_->ask({Question::kFindTokenizer});
  if (!reply.ok()) return reply.refusal();
  if (reply.value().number == 0) return std::optional<TokenizerFiles>();
  std::array<uint64_t, 2> sizes{};
  if (reply.value().bytes != sizeof sizes || reply.value().number > limits::kVocabularyMax)
    return nonsense("a vocabulary that is none");
  std::memcpy(sizes.data(), process_->window().data(), sizeof sizes);
  if (sizes[0] > kTokenizerFileMax || sizes[1] > kTokenizerFileMax) return nonsense("a vocabulary that is too large");
  Result<std::string> vocab = tokenizer_text(0, sizes[0]);
  if (!vocab.ok()) return vocab.refusal();
  Result<std::string> merges = tokenizer_text(sizes[0], sizes[1]);
  if (!merges.ok()) return merges.refusal();
  return std::optional(TokenizerFiles{std::move(vocab).value(), std::move(merges).value(),
                                      static_cast<int64_t>(reply.value().number)});
}

}  // namespace optserve::converter
