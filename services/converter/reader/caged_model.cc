#include "converter/reader/caged_model.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace optserve::converter {
namespace {

using model_spec::TensorSpec;

Refusal nonsense(const std::string& what) {
  return refuse(ErrorCode::kDataCorrupt, "the checkpoint reader gave an invalid answer: " + what);
}

}  // namespace

Result<CagedModel> CagedModel::open(const ReadJob& job, const ReaderSettings& settings) {
  std::vector<std::string> arguments = to_arguments(job);
  arguments.insert(arguments.begin(), {std::string(sandbox_mode_name(settings.sandbox)), std::to_string(getpid())});
  CagedModel source(std::make_unique<ReaderProcess>(settings, std::move(arguments)));
  const Result<Reply> reply = source.process_->ask({Question::kOpen});
  if (!reply.ok()) return reply.refusal();
  const auto shared = source.process_->window().first(reply.value().bytes);
  const std::vector<std::byte> bytes(shared.begin(), shared.end());
  Result<ModelSummary> summary = decode_summary(bytes);
  if (!summary.ok()) return summary.refusal();
  source.summary_ = std::move(summary).value();
  const ModelSummary& found = source.summary_;
  if (found.config && found.config->name != job.name) return nonsense("a model with another name");
  if (!job.for_inspection && (!found.config || !found.problem.empty())) {
    return nonsense("neither a model nor a refusal");
  }
  if (!found.problem.empty()) return source;
  source.table_ = model_spec::opt_tensors(*found.config);
  for (const TensorSpec& spec : source.table_) {
    source.places_.emplace(spec.name, static_cast<uint32_t>(source.places_.size()));
  }
  return source;
}

uint64_t CagedModel::row_bytes(uint32_t place) const {
  return static_cast<uint64_t>(table_[place].cols) * dtype_bytes(summary_.dtypes[place]);
}

// As many as fit into one half of the window.
int64_t CagedModel::rows_that_fit(uint32_t place) const {
  const auto rows = static_cast<int64_t>(kHalfBytes / row_bytes(place));
  check(rows > 0, "CagedModel: a row that exceeds the window");
  return rows;
}

// The answer to `request`. Collects the answers to what was asked ahead first.
Result<Reply> CagedModel::ask(const Request& request) const {
  while (!ahead_.empty()) {
    if (Status status = settle_one(); !status.ok()) return status.refusal();
  }
  return process_->ask(request);
}

Status CagedModel::settle_one() const {
  const Request request = ahead_.front();
  ahead_.pop_front();
  const Result<Reply> reply = process_->collect();
  if (!reply.ok()) return reply.refusal();
  if (request.question == Question::kReadRows) {
    take_rows(request, reply.value());
  } else {
    checked_ = request.tensor;
  }
  return ok_status();
}

void CagedModel::take_rows(const Request& request, const Reply& reply) const {
  const uint64_t expected = static_cast<uint64_t>(request.count) * row_bytes(request.tensor);
  if (reply.bytes != expected) throw Error(nonsense("a number of bytes that is not that of the rows").message);
  rows_ = request;
}

bool CagedModel::is_at_hand(uint32_t place, int64_t row) const {
  return rows_ && rows_->tensor == place && row >= rows_->begin && row < rows_->begin + rows_->count;
}

void CagedModel::post_ahead(const Request& request) const {
  process_->post(request);
  ahead_.push_back(request);
}

// Asks for the rows after those at hand, or after the last ones for the next tensor, since tensors are moved in the
// order of the table.
void CagedModel::ask_ahead() const {
  if (!ahead_.empty()) return;
  uint32_t place = rows_->tensor;
  int64_t row = rows_->begin + rows_->count;
  int64_t count = rows_->count;
  if (row == table_[place].rows) {
    if (++place == table_.size()) return;
    row = 0;
    count = rows_that_fit(place);
    if (checked_) post_ahead({Question::kCheckBytes, place});
  }
  count = std::min(count, table_[place].rows - row);
  post_ahead({Question::kReadRows, place, row, count, 1 - rows_->half});
}

// Gets a block of rows that holds `row`. Small tensors come whole, since a question costs more than their bytes.
void CagedModel::fetch(const TensorSpec& spec, int64_t row, int64_t count) const {
  const uint32_t place = place_of(spec);
  while (!ahead_.empty() && !is_at_hand(place, row)) {
    if (const Status status = settle_one(); !status.ok()) throw Error(status.refusal().message);
  }
  if (!is_at_hand(place, row)) {
    const bool is_small = spec.rows <= rows_that_fit(place);
    const int64_t first = is_small ? 0 : row;
    const int64_t rows = is_small ? spec.rows : std::min(count, rows_that_fit(place));
    const Request request{Question::kReadRows, place, first, rows, rows_ ? 1 - rows_->half : 0};
    const Result<Reply> reply = process_->ask(request);
    if (!reply.ok()) throw Error(reply.refusal().message);
    take_rows(request, reply.value());
  }
  ask_ahead();
}

Status CagedModel::check_bytes(const TensorSpec& spec) const {
  const uint32_t place = place_of(spec);
  while (!ahead_.empty() && checked_ != place) {
    if (Status status = settle_one(); !status.ok()) return status;
  }
  if (checked_ == place) return ok_status();
  const Result<Reply> reply = process_->ask({Question::kCheckBytes, place});
  if (!reply.ok()) return reply.refusal();
  checked_ = place;
  return ok_status();
}

bool CagedModel::replicas_agree(const TensorSpec& spec) const {
  if (!summary_.has_replicas) return true;
  const Result<Reply> reply = ask({Question::kReplicasAgree, place_of(spec)});
  if (!reply.ok()) throw Error(reply.refusal().message);
  return reply.value().number != 0;
}

Status CagedModel::check_unchanged() const {
  const Result<Reply> reply = ask({Question::kCheckUnchanged});
  return reply.ok() ? ok_status() : Status(reply.refusal());
}

void CagedModel::read_rows(const TensorSpec& spec, int64_t row, int64_t count, std::span<std::byte> out) const {
  const uint32_t place = place_of(spec);
  const uint64_t bytes = row_bytes(place);
  check_eq(out.size(), static_cast<size_t>(count) * bytes, "CagedModel::read_rows: bytes of " + spec.name);
  for (int64_t done = 0; done < count;) {
    if (!is_at_hand(place, row + done)) fetch(spec, row + done, count - done);
    const auto skipped = static_cast<uint64_t>(row + done - rows_->begin);
    const int64_t rows = std::min(count - done, rows_->begin + rows_->count - row - done);
    std::memcpy(out.data() + static_cast<uint64_t>(done) * bytes,
                process_->window().data() + rows_->half * kHalfBytes + skipped * bytes,
                static_cast<uint64_t>(rows) * bytes);
    done += rows;
  }
}

Result<std::string> CagedModel::tokenizer_text(uint64_t begin, uint64_t bytes) const {
  std::string text(bytes, '\0');
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t count = std::min(kWindowBytes, bytes - done);
    const Result<Reply> reply =
        ask({Question::kTokenizerBytes, 0, static_cast<int64_t>(begin + done), static_cast<int64_t>(count)});
    if (!reply.ok()) return reply.refusal();
    if (reply.value().bytes != count) return nonsense("a vocabulary of another length than it had announced");
    std::memcpy(text.data() + done, process_->window().data(), count);
    done += count;
  }
  return text;
}

Result<std::optional<TokenizerFiles>> CagedModel::tokenizer() const {
  const Result<Reply> reply = ask({Question::kFindTokenizer});
  if (!reply.ok()) return reply.refusal();
  if (reply.value().number == 0) return std::optional<TokenizerFiles>();
  const auto shared = process_->window().first(reply.value().bytes);
  const std::vector<std::byte> bytes(shared.begin(), shared.end());
  Result<TokenizerSummary> summary = decode_tokenizer(bytes);
  if (!summary.ok()) return summary.refusal();
  TokenizerFiles files = std::move(summary.value().files);
  uint64_t begin = 0;
  for (const auto& [text, size] : {std::pair{&files.vocab, summary.value().bytes[0]},
                                   {&files.merges, summary.value().bytes[1]},
                                   {&files.added, summary.value().bytes[2]}}) {
    if (size > kTokenizerFileMax) return nonsense("a vocabulary that is too large");
    Result<std::string> found = tokenizer_text(begin, size);
    if (!found.ok()) return found.refusal();
    *text = std::move(found).value();
    begin += size;
  }
  return std::optional(std::move(files));
}

}  // namespace optserve::converter
