// A foreign model as the converter sees it. Its files are opened and parsed by a process of its own, in a cage, which
// holds the ForeignModel; here are only its answers, which are checked because foreign bytes may have taken that
// process over.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "converter/reader/model_summary.h"
#include "converter/reader/read_job.h"
#include "converter/reader/reader_process.h"
#include "converter/vocabulary/tokenizer_files.h"
#include "converter/weight_rows.h"
#include "model_spec/opt_tensors.h"

namespace optserve::converter {

class CagedModel final : public WeightRows {
 public:
  // Refuses inputs that are no checkpoint of an OPT model. For inspection they are opened as long as their files can be
  // read, and summary().problem says what is wrong.
  static Result<CagedModel> open(const ReadJob& job, const ReaderSettings& settings);

  const ModelSummary& summary() const { return summary_; }
  const model_spec::OptConfig& config() const override { return *summary_.config; }
  // The type all tensors share, or F32 if they differ.
  DType natural_dtype() const { return summary_.natural_dtype; }
  DType dtype(const model_spec::TensorSpec& spec) const override { return summary_.dtypes[place_of(spec)]; }

  // Compares the bytes behind a tensor with their checksums, where the format has them.
  Status check_bytes(const model_spec::TensorSpec& spec) const;
  void read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                 std::span<std::byte> out) const override;
  // True unless a tensor that every part has whole differs between parts.
  bool replicas_agree(const model_spec::TensorSpec& spec) const;
  // Refuses if a file changed since it was opened.
  Status check_unchanged() const;
  // See find_tokenizer().
  Result<std::optional<TokenizerFiles>> tokenizer() const;

 private:
  explicit CagedModel(std::unique_ptr<ReaderProcess> process) : process_(std::move(process)) {}
  uint64_t row_bytes(uint32_t place) const;
  int64_t rows_that_fit(uint32_t place) const;
  uint32_t place_of(const model_spec::TensorSpec& spec) const { return places_.at(spec.name); }
  Result<Reply> ask(const Request& request) const;
  Status settle_one() const;
  void take_rows(const Request& request, const Reply& reply) const;
  bool is_at_hand(uint32_t place, int64_t row) const;
  void fetch(const model_spec::TensorSpec& spec, int64_t row, int64_t count) const;
  void ask_ahead() const;
  void post_ahead(const Request& request) const;
  Result<std::string> tokenizer_text(uint64_t begin, uint64_t bytes) const;

  std::unique_ptr<ReaderProcess> process_;
  ModelSummary summary_;
  std::map<std::string, uint32_t> places_;     // in table_
  std::vector<model_spec::TensorSpec> table_;  // opt_tensors(config)
  // The rows that one half of the window holds, and the questions that the reader works on meanwhile: the next rows,
  // for the other half, or the checksum and the first rows of the next tensor.
  mutable std::optional<Request> rows_;
  mutable std::deque<Request> ahead_;
  mutable std::optional<uint32_t> checked_;  // the tensor whose checksum was compared last
};

}  // namespace optserve::converter
