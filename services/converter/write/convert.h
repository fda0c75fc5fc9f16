// Foreign checkpoint in, sharded checkpoint out. The command line and the converter service both call this library.
//
// Shards are finished in passes, in a hidden folder beside the output. A later call for the same conversion goes on
// from the shards that are finished, and processes that are asked for it at the same time share the work.
//
// Tensors stream from input to output in pieces of a few megabytes, so memory does not depend on the model's size. The
// same weights give the same shard bytes, whatever files they came in.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "conversion/command_options.h"
#include "converter/reader/caged_model.h"
#include "converter/reader/reader_process.h"
#include "model_spec/opt_config.h"
#include "quant/quant_format.h"
#include "tensor/dtype.h"

namespace optserve::converter {

struct ConvertProgress {
  uint64_t bytes_done = 0;  // of output tensors
  uint64_t bytes_total = 0;
  std::string_view tensor;  // canonical name of the one at work; empty at the end
};

// False cancels the conversion.
using OnConvertProgress = std::function<bool(const ConvertProgress&)>;

// What a conversion is asked for, with its words read. options_of() in commands/convert_command.h makes it of a command
// line, and service/serve.cc a command line of a job.
struct ConvertOptions : conversion::ConvertRequest {
  std::optional<DType> dtype;                       // F32, F16 or BF16; unset: as the input has it
  std::optional<quant::Quantisation> quantisation;  // of the large matrices; their values are rounded to dtype first
  ReaderSettings reader;                            // of the process that opens and parses the input
  OnConvertProgress on_progress;                    // called once for each piece of a tensor; may be empty
};

struct ConvertResult {
  model_spec::OptConfig config;
  DType dtype = DType::kF16;  // of what is not quantised
  std::optional<quant::Quantisation> quantisation;
  int shards = 0;
  int64_t parameters = 0;      // elements of all tensors
  uint64_t bytes_written = 0;  // of tensors, all shards together, whoever wrote them
  uint64_t nonfinite = 0;      // NaN or infinite elements that were accepted
  bool has_tokenizer = false;
  bool existed = false;  // nothing was done: the output was there
  std::string layout;    // of the input, for people
  std::vector<std::string> warnings;
};

// An output that the same conversion has written before is its result. Refuses options out of range, bad input, another
// existing output, and cancellation (ErrorCode::kCancelled). Throws Error when the environment fails. In all these
// cases no output becomes visible. Finished shards stay for the next attempt after a cancellation or an Error, and
// while other processes use them; of bad input nothing stays. `clock` paces the looks at what other processes have
// done.
Result<ConvertResult> convert(const ConvertOptions& options, const Clock& clock);

// The source of a conversion, whose model gets this name.
Result<CagedModel> open_source(const ConvertOptions& options, const std::string& name);

// The default shard count of a model. 1 works unless no count does.
int default_shards(const model_spec::OptConfig& config, const std::optional<quant::Quantisation>& quantisation = {});

// One line for people: what was written to `output`, in which formats, and from what.
std::string summary_text(const std::string& output, const ConvertResult& result);

}  // namespace optserve::converter
