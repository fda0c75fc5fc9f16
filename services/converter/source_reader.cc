#include "converter/source_reader.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace optserve::converter {
namespace {

using model_spec::TensorSpec;

constexpr size_t kJobArguments = 6;
constexpr int64_t kBlockBytes = 4 << 20;

Refusal nonsense(const std::string& what) {
  return refuse(ErrorCode::kDataCorrupt, "the reader of the checkpoint answered nonsense: " + what);
}

}  // namespace

std::vector<std::string> to_arguments(const ReadJob& job) {
  return {job.for_inspection ? "inspect" : "convert",
          job.input,
          job.name,
          std::to_string(job.num_heads),
          job.vocab_file,
          job.merges_file};
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
  for (const TensorSpec& spec : model_spec::opt_tensors(*found.config)) {
    const auto place = static_cast<uint32_t>(source.row_bytes_.size());
    source.places_.emplace(spec.name, place);
    source.row_bytes_.push_back(static_cast<uint64_t>(spec.cols) * tensor::dtype_bytes(found.dtypes[place]));
  }
  return source;
}

// The answer to `request`; what was asked ahead is settled first.
Result<Reply> SourceReader::ask(const Request& request) const {
  if (Status status = settle(); !status.ok()) return status.refusal();
  return process_->ask(request);
}

Status SourceReader::settle() const {
  if (!ahead_) return ok_status();
  const Request request = *std::exchange(ahead_, std::nullopt);
  const Result<Reply> reply = process_->collect();
  if (!reply.ok()) return reply.refusal();
  if (request.question == Question::kReadRows)
    take_rows(request, reply.value());
  else
    checked_ = request.tensor;
  return ok_status();
}

void SourceReader::take_rows(const Request& request, const Reply& reply) const {
  const uint64_t expected = static_cast<uint64_t>(request.count) * row_bytes_[request.tensor];
  if (reply.bytes != expected) throw Error(nonsense("another number of bytes than rows have").message);
  rows_ = request;
}

bool SourceReader::is_at_hand(uint32_t place, int64_t row) const {
  return rows_ && rows_->tensor == place && row >= rows_->begin && row < rows_->begin + rows_->count;
}

// Rows from `row` on, or else the next tensor's checksum.
void SourceReader::ask_ahead(const TensorSpec& spec, int64_t row, int64_t count) const {
  const uint32_t place = place_of(spec);
  if (row < spec.rows)
    ahead_ = Request{Question::kReadRows, place, row, std::min(count, spec.rows - row), rows_ ? 1 - rows_->half : 0};
  else if (checked_ && place + 1 < row_bytes_.size())
    ahead_ = Request{Question::kCheckBytes, place + 1};
  if (ahead_) process_->post(*ahead_);
}

// Makes a block of rows that begins at or before `row` the one at hand: small tensors come whole, since a question
// costs more than their bytes.
void SourceReader::fetch(const TensorSpec& spec, int64_t row, int64_t count) const {
  if (const Status status = settle(); !status.ok()) throw Error(status.refusal().message);
  const uint32_t place = place_of(spec);
  const auto row_bytes = static_cast<int64_t>(row_bytes_[place]);
  if (!is_at_hand(place, row)) {
    const int64_t wanted = std::max(count, kBlockBytes / row_bytes);
    const int64_t rows = std::min({wanted, static_cast<int64_t>(kHalfBytes) / row_bytes, spec.rows - row});
    check(rows > 0, "SourceReader: a row that exceeds the window");
    const Request request{Question::kReadRows, place, row, rows, rows_ ? 1 - rows_->half : 0};
    const Result<Reply> reply = process_->ask(request);
    if (!reply.ok()) throw Error(reply.refusal().message);
    take_rows(request, reply.value());
  }
  ask_ahead(spec, rows_->begin + rows_->count, rows_->count);
}

Status SourceReader::check_bytes(const TensorSpec& spec) const {
  const uint32_t place = place_of(spec);
  if (Status status = settle(); !status.ok()) return status;
  if (checked_ == place) return ok_status();
  const Result<Reply> reply = process_->ask({Question::kCheckBytes, place});
  if (!reply.ok()) return reply.refusal();
  checked_ = place;
  return ok_status();
}

bool SourceReader::replicas_agree(const TensorSpec& spec) const {
  if (!summary_.has_replicas) return true;
  const Result<Reply> reply = ask({Question::kReplicasAgree, place_of(spec)});
  if (!reply.ok()) throw Error(reply.refusal().message);
  return reply.value().number != 0;
}

Status SourceReader::check_unchanged() const {
  const Result<Reply> reply = ask({Question::kCheckUnchanged});
  return reply.ok() ? ok_status() : Status(reply.refusal());
}

void SourceReader::read_rows(const TensorSpec& spec, int64_t row, int64_t count, std::span<std::byte> out) const {
  const uint32_t place = place_of(spec);
  const uint64_t row_bytes = row_bytes_[place];
  check_eq(out.size(), static_cast<size_t>(count) * row_bytes, "SourceReader::read_rows: bytes of " + spec.name);
  for (int64_t done = 0; done < count;) {
    if (!is_at_hand(place, row + done)) fetch(spec, row + done, count - done);
    const auto skipped = static_cast<uint64_t>(row + done - rows_->begin);
    const int64_t rows = std::min(count - done, rows_->begin + rows_->count - row - done);
    std::memcpy(out.data() + static_cast<uint64_t>(done) * row_bytes,
                process_->window().data() + rows_->half * kHalfBytes + skipped * row_bytes,
                static_cast<uint64_t>(rows) * row_bytes);
    done += rows;
  }
}

Result<std::string> SourceReader::tokenizer_text(uint64_t begin, uint64_t bytes) const {
  std::string text(bytes, '\0');
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t count = std::min(kWindowBytes, bytes - done);
    const Result<Reply> reply =
        ask({Question::kTokenizerBytes, 0, static_cast<int64_t>(begin + done), static_cast<int64_t>(count)});
    if (!reply.ok()) return reply.refusal();
    if (reply.value().bytes != count) return nonsense("another number of bytes of the vocabulary");
    std::memcpy(text.data() + done, process_->window().data(), count);
    done += count;
  }
  return text;
}

Result<std::optional<TokenizerFiles>> SourceReader::tokenizer() const {
  const Result<Reply> reply = ask({Question::kFindTokenizer});
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
  return std::optional(
      TokenizerFiles{std::move(vocab).value(), std::move(merges).value(), static_cast<int64_t>(reply.value().number)});
}

}  // namespace optserve::converter
