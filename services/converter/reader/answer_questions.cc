#include "converter/reader/answer_questions.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include "base/check.h"
#include "converter/formats/infer_config.h"
#include "converter/formats/open_foreign.h"
#include "converter/reader/cage.h"
#include "converter/reader/reader_protocol.h"
#include "converter/vocabulary/tokenizer_files.h"

namespace optserve::converter {
namespace {

using model_spec::TensorSpec;

void list_tensors(const ForeignCheckpoint& foreign, ModelSummary& summary) {
  for (size_t part = 0; part < foreign.parts.size(); ++part) {
    for (const auto& [name, tensor] : foreign.parts[part]) {
      summary.tensors.push_back({name, tensor->dtype(), tensor->shape(), static_cast<uint32_t>(part)});
    }
  }
}

class Answerer {
 public:
  Answerer(const ReadJob& job, const std::string& missing, std::span<std::byte> window)
      : job_(job), missing_(missing), window_(window) {}

  // Failures become answers.
  Reply answer(const Request& request) {
    try {
      const Result<Reply> reply = try_to_answer(request);
      return reply.ok() ? reply.value() : text_reply(Answer::kRefusal, reply.refusal());
    } catch (const std::bad_alloc&) {
      return text_reply(Answer::kRefusal,
                        refuse(ErrorCode::kDataCorrupt, job_.input + ": reading it takes more memory than " +
                                                            std::to_string(kCageDataBytes >> 20) + " MiB"));
    } catch (const std::exception& error) {
      return text_reply(Answer::kError, refuse(ErrorCode::kUnavailable, error.what()));
    }
  }

 private:
  Result<Reply> try_to_answer(const Request& request) {
    switch (request.question) {
      case Question::kOpen:
        return open();
      case Question::kCheckBytes:
        return done(model_->check_bytes(spec_of(request)));
      case Question::kReplicasAgree:
        return Reply{.number = model_->replicas_agree(spec_of(request)) ? 1u : 0u};
      case Question::kReadRows:
        return read_rows(request);
      case Question::kCheckUnchanged:
        return done(model_->check_unchanged());
      case Question::kFindTokenizer:
        return find_tokenizer_files();
      case Question::kTokenizerBytes:
        return put(std::string_view(tokenizer_)
                       .substr(static_cast<size_t>(request.begin), static_cast<size_t>(request.count)));
    }
    throw Error("an unknown kind of question");
  }

  static Result<Reply> done(const Status& status) {
    if (!status.ok()) return status.refusal();
    return Reply{};
  }

  const TensorSpec& spec_of(const Request& request) const {
    check(model_.has_value(), "reader: a question before the checkpoint is open");
    return table_.at(request.tensor);
  }

  Reply put(std::string_view bytes) {
    check(bytes.size() <= window_.size(), "reader: more than the window holds");
    std::memcpy(window_.data(), bytes.data(), bytes.size());
    return Reply{.bytes = bytes.size()};
  }

  Reply text_reply(Answer answer, const Refusal& refusal) {
    Reply reply = put(std::string_view(refusal.message).substr(0, kReplyTextMax));
    reply.answer = answer;
    reply.code = static_cast<uint32_t>(refusal.code);
    return reply;
  }

  Result<Reply> open() {
    Result<ModelSummary> summary = summarise(job_, model_);
    if (!summary.ok()) return summary.refusal();
    if (!missing_.empty()) {
      summary.value().warnings.push_back("the reader's sandbox is not complete on this system (" + missing_ + ")");
    }
    if (model_) table_ = model_spec::opt_tensors(model_->config());
    const Result<std::string> bytes = encode_summary(summary.value(), window_.size());
    if (!bytes.ok()) return bytes.refusal();
    return put(bytes.value());
  }

  Result<Reply> read_rows(const Request& request) {
    const TensorSpec& spec = spec_of(request);
    const bool is_inside = request.begin >= 0 && request.count >= 0 && request.count <= spec.rows - request.begin;
    check(is_inside, "reader: rows outside of " + spec.name);
    const uint64_t bytes =
        static_cast<uint64_t>(request.count) * static_cast<uint64_t>(spec.cols) * dtype_bytes(model_->dtype(spec));
    check(request.half < 2 && bytes <= kHalfBytes, "reader: rows that do not fit");
    model_->read_rows(spec, request.begin, request.count, window_.subspan(request.half * kHalfBytes, bytes));
    return Reply{.bytes = bytes};
  }

  Result<Reply> find_tokenizer_files() {
    Result<std::optional<TokenizerFiles>> found =
        find_tokenizer({job_.input, job_.vocab_file, job_.merges_file, job_.prompt_tokens});
    if (!found.ok()) return found.refusal();
    if (!found.value()) return Reply{};
    tokenizer_ = found.value()->vocab + found.value()->merges + found.value()->added;
    Reply reply = put(encode_tokenizer(*found.value()));
    reply.number = 1;
    return reply;
  }

  const ReadJob& job_;
  const std::string& missing_;
  std::span<std::byte> window_;
  std::optional<ForeignModel> model_;
  std::vector<TensorSpec> table_;
  std::string tokenizer_;  // all its files
};

}  // namespace

Result<ModelSummary> summarise(const ReadJob& job, std::optional<ForeignModel>& model) {
  Result<ForeignCheckpoint> opened = open_foreign(job.input);
  if (!opened.ok()) return opened.refusal();
  ForeignCheckpoint& foreign = opened.value();
  ModelSummary summary;
  summary.kind = foreign.kind;
  summary.layout = foreign.layout;
  summary.files = foreign.files;
  summary.warnings = foreign.warnings;
  summary.warnings.insert(summary.warnings.end(), foreign.hints.notes.begin(), foreign.hints.notes.end());
  summary.has_replicas = foreign.parts.size() > 1;
  if (job.for_inspection) {
    list_tensors(foreign, summary);
    const Result<std::optional<TokenizerFiles>> tokenizer = find_tokenizer({job.input});
    summary.has_tokenizer = tokenizer.ok() && tokenizer.value().has_value();
  }
  Result<model_spec::OptConfig> config = infer_config(foreign, job.name, job.num_heads);
  std::optional<Refusal> problem;
  if (config.ok()) {
    summary.config = config.value();
    Result<ForeignModel> found = ForeignModel::open(std::move(foreign), config.value(), job.head);
    if (found.ok()) {
      model.emplace(std::move(found).value());
    } else {
      problem = found.refusal();
    }
  } else {
    problem = config.refusal();
  }
  if (problem && !job.for_inspection) return *problem;
  if (problem) {
    summary.problem = problem->message;
    return summary;
  }
  summary.config = model->config();
  summary.natural_dtype = model->natural_dtype();
  for (const TensorSpec& spec : model_spec::opt_tensors(model->config())) summary.dtypes.push_back(model->dtype(spec));
  return summary;
}

void answer_questions(const ReadJob& job, const std::string& missing, int channel_fd, std::span<std::byte> window) {
  Answerer answerer(job, missing, window);
  for (Request request; read(channel_fd, &request, sizeof request) == sizeof request;) {
    const Reply reply = answerer.answer(request);
    if (write(channel_fd, &reply, sizeof reply) != sizeof reply) return;
  }
}

}  // namespace optserve::converter
