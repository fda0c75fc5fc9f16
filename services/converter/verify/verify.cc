#include "converter/verify/verify.h"

#include <array>
#include <cstdio>

#include "checkpoint/reader.h"
#include "converter/reader/caged_model.h"
#include "converter/transform/padded_rows.h"
#include "converter/transform/smoothing.h"
#include "converter/verify/engine_weights.h"
#include "converter/verify/rounded_rows.h"

namespace optserve::converter {
namespace {

using checkpoint::CheckpointReader;

constexpr int kVerifyHashThreads = 2;

Refusal cancelled() { return refuse(ErrorCode::kCancelled, "the verification was cancelled"); }

// The source's model under the name and with the tokenizer that the conversion gave it.
Status check_same_model(const CheckpointReader& checkpoint, const CagedModel& source) {
  const model_spec::OptConfig& found = checkpoint.config();
  model_spec::OptConfig config = model_spec::with_padded_vocab(source.config(), checkpoint.manifest().shards);
  config.vocab_real = found.vocab_real;
  config.bos_id = found.bos_id;
  config.leads_with_bos = found.leads_with_bos;
  if (config == checkpoint.config()) return ok_status();
  return refuse(
      ErrorCode::kBadRequest,
      checkpoint.folder() + ": is of another model than the source: " + std::to_string(checkpoint.config().num_layers) +
          " layers of width " + std::to_string(checkpoint.config().hidden) + ", expected " +
          std::to_string(config.num_layers) + " of " + std::to_string(config.hidden) + ", with the same other sizes");
}

void check_files(const CheckpointReader& checkpoint, VerifyReport& report) {
  for (const checkpoint::FileEntry& file : checkpoint.manifest().files) {
    ++report.files;
    report.file_bytes += file.bytes;
  }
  const Status status = checkpoint.verify_checksums(0, 1, kVerifyHashThreads);
  if (!status.ok()) report.file_faults.push_back(status.refusal().message);
}

// The weights of both sides, as the checkpoint was made of them: `plain` are the source's own, which are never
// smoothed, `stored` what was rounded.
struct SourceSides {
  const WeightRows& plain;
  const WeightRows& stored;
  DType dtype;  // of the source
  bool is_smoothed;
};

// All sides run the same code; only where the weights come from differs.
Status check_logits(const CheckpointReader& checkpoint, const SourceSides& source, const std::function<bool()>& goes_on,
                    VerifyReport& report) {
  const std::vector<TokenId> prompt = golden_prompt(checkpoint.config());
  const checkpoint::ShardPlan plan = checkpoint::shard_plan(checkpoint.manifest());
  const auto wanted = golden_logits(EngineWeights(source.plain, source.dtype), prompt, goes_on);
  if (!wanted) return cancelled();
  const auto found = golden_logits(*engine::make_checkpoint_source(checkpoint), prompt, goes_on);
  if (!found) return cancelled();
  report.logits = report.computed = compare_logits(*wanted, *found, checkpoint.config().vocab);
  if (plan.quantisation || source.is_smoothed || plan.dtype != source.dtype) {
    const RoundedRows rounded(source.stored, plan);
    const auto same = golden_logits(EngineWeights(rounded, DType::kF32), prompt, goes_on);
    if (!same) return cancelled();
    report.computed = compare_logits(*same, *found, checkpoint.config().vocab);
  }
  report.logit_bound = logit_bound(!plan.quantisation);
  if (report.computed.relative <= report.logit_bound) return ok_status();
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(),
                "logits differ from those of the source's rounded weights by up to %.4g, relative rms %.3g, expected "
                "at most %.3g",
                report.computed.largest, report.computed.relative, report.logit_bound);
  report.logit_faults.emplace_back(text.data());
  return ok_status();
}

std::string line(const char* check, const std::string& compared, const std::string& found) {
  std::array<char, 320> text{};
  std::snprintf(text.data(), text.size(), "%-14s %-36s %s\n", check, compared.c_str(), found.c_str());
  return text.data();
}

std::string weights_text(const WeightReport& weights) {
  if (!weights.faults.empty()) return "differ: " + std::to_string(weights.faults.size()) + " tensors of shards";
  if (weights.worst == 0) return "all equal";
  std::array<char, 80> text{};
  std::snprintf(text.data(), text.size(), "all within rounding, at most %.2f of it", weights.worst);
  return text.data();
}

std::string logits_text(const VerifyReport& report) {
  if (!report.logit_faults.empty()) return "logits are not those of its weights";
  const LogitDifference& logits = report.logits;
  if (logits.largest == 0) return "logits are equal";
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(),
                "as its weights give them; off the source's by up to %.3g, relative rms %.2g; the same best token in "
                "%lld of %lld",
                logits.largest, logits.relative, static_cast<long long>(logits.same_best),
                static_cast<long long>(logits.rows));
  return text.data();
}

}  // namespace

std::vector<std::string> VerifyReport::faults() const {
  std::vector<std::string> all;
  for (const std::string& fault : file_faults) all.push_back("files: " + fault);
  for (const std::string& fault : weights.faults) all.push_back("weights: " + fault);
  for (const std::string& fault : logit_faults) all.push_back("golden prompt: " + fault);
  return all;
}

Result<VerifyReport> verify(const ConvertOptions& options) {
  const Result<CheckpointReader> checkpoint = CheckpointReader::open(options.output);
  if (!checkpoint.ok()) return checkpoint.refusal();
  const Result<CagedModel> source = open_source(options, checkpoint.value().config().name);
  if (!source.ok()) return source.refusal();
  if (Status status = check_same_model(checkpoint.value(), source.value()); !status.ok()) return status.refusal();
  const auto goes_on = [&] { return !options.on_progress || options.on_progress({}); };
  const auto smoothed = open_smoothing(options, source.value());
  if (!smoothed.ok()) return smoothed.refusal();
  const model_spec::OptConfig& config = checkpoint.value().config();
  const PaddedRows plain(source.value(), config);
  const WeightRows& smooth = smoothed.value() ? static_cast<const WeightRows&>(smoothed.value()->rows) : source.value();
  const PaddedRows rows(smooth, config);
  VerifyReport report;
  check_files(checkpoint.value(), report);
  report.weights = compare_weights(checkpoint.value(), rows, goes_on);
  if (!goes_on()) return cancelled();
  const SourceSides sides{plain, rows, source.value().natural_dtype(), smoothed.value().has_value()};
  if (Status status = check_logits(checkpoint.value(), sides, goes_on, report); !status.ok()) return status.refusal();
  if (Status status = source.value().check_unchanged(); !status.ok()) return status.refusal();
  return report;
}

std::string verify_text(const VerifyReport& report) {
  constexpr double kMega = 1e6;
  std::array<char, 64> megabytes{};
  std::snprintf(megabytes.data(), megabytes.size(), "%.1f MB", static_cast<double>(report.file_bytes) / kMega);
  return line("files", std::to_string(report.files) + " files, " + megabytes.data(),
              report.file_faults.empty() ? "SHA-256 as the manifest has them" : "SHA-256 differ") +
         line("weights",
              std::to_string(report.weights.tensors) + " tensors, " + std::to_string(report.weights.weights) +
                  " weights",
              weights_text(report.weights)) +
         line("golden prompt", std::to_string(report.logits.rows) + " tokens", logits_text(report));
}

}  // namespace optserve::converter
