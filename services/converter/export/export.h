// Sharded checkpoint in, checkpoint of Hugging Face or Metaseq out: the reverse of write/convert.h. Tensors stream in
// the same way, and the folder becomes visible whole or not at all. The same checkpoint gives the same bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "conversion/command_options.h"
#include "converter/write/convert.h"

namespace optserve::converter {

enum class ExportFormat : uint8_t { kHuggingFace, kMetaseq };
std::optional<ExportFormat> parse_export_format(std::string_view name);  // "huggingface", "metaseq"

struct ExportOptions : conversion::ExportRequest {
  ExportFormat format = ExportFormat::kHuggingFace;
  uint64_t file_bytes_max = 5'000'000'000;  // of one Hugging Face file; larger models get several and an index
  OnConvertProgress on_progress;
};

struct ExportResult {
  model_spec::OptConfig config;
  DType dtype = DType::kF16;
  int files = 0;               // with weights
  uint64_t bytes_written = 0;  // of tensors
  bool has_tokenizer = false;
};

// Refuses a damaged or quantised checkpoint, an output that exists and cancellation (ErrorCode::kCancelled); then
// nothing is left behind. Throws Error when the environment fails, with the same guarantee.
Result<ExportResult> export_checkpoint(const ExportOptions& options);

}  // namespace optserve::converter
