// Foreign checkpoint in, sharded checkpoint out. Pure library: the command line and the converter service call it.
//
// Shards are finished in passes, in a hidden folder beside the output. Who is asked for the same conversion again goes
// on from those that are finished, and several processes that are asked at once share the work.
//
// Tensors stream from input to output in pieces of a few megabytes, so memory does not depend on the model. The same
// weights give the same shard bytes whatever files they came in.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
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

struct ConvertOptions {
  std::string input;   // folder, file, glob, or Metaseq's virtual X.pt
  std::string output;  // folder to create; its name becomes the model's name unless `name` is set
  std::string name;
  std::optional<tensor::DType> dtype;        // F32, F16 or BF16; unset: as the input has it
  std::optional<Quantisation> quantisation;  // of the large matrices; their values are rounded to dtype first
  std::string smooth_ranges;                 // file of `optserve calibrate`; empty: weights stay as they are
  double smooth_alpha = 0.5;                 // how much of the inputs' magnitude goes into the weights
  int shards = 0;                            // 0: the largest of 8, 4, 2, 1 that the model and the quantisation allow
  int64_t num_heads = 0;                     // 0: as the files say
  std::string vocab_file;                    // both empty: found beside the input or in the folder above
  std::string merges_file;
  bool allow_nonfinite = false;  // accept NaN and infinite weights where they can be stored
  bool check_source = true;      // compare the input's bytes with its CRC-32s
  bool restart = false;          // remove what an attempt that ended has left, instead of going on from it
  int64_t pass_mib_max = 0;      // of output that is written before its shards count as finished; see shards_per_pass()
  ReaderSettings reader;         // of the process that opens and parses the input
  // Called a few times a second at most per tensor piece; false cancels the conversion.
  std::function<bool(const ConvertProgress&)> on_progress;
};

struct ConvertResult {
  model_spec::OptConfig config;
  tensor::DType dtype = tensor::DType::kF16;  // of what is not quantised
  std::optional<Quantisation> quantisation;
  int shards = 0;
  int64_t parameters = 0;      // elements of all tensors
  uint64_t bytes_written = 0;  // of tensors, all shards together, whoever wrote them
  uint64_t nonfinite = 0;      // NaN or infinite elements that were accepted
  bool has_tokenizer = false;
  bool existed = false;  // nothing was done: the output was there
  std::string layout;    // of the input, for people
  std::vector<std::string> warnings;
};

// An output that the same conversion has written before is its result. Refuses bad input, another existing output, and
// cancellation (ErrorCode::kCancelled). Throws Error when the environment fails. No output is visible then. Finished
// shards stay for the next attempt after a cancellation or an Error, and where other processes are at work; nothing
// stays of bad input.
Result<ConvertResult> convert(const ConvertOptions& options);

// The default shard count of a model. 1 works unless no count does.
int default_shards(const model_spec::OptConfig& config, const std::optional<Quantisation>& quantisation = {});

// "F16", or "int8 and F16": the formats of the output, for people.
std::string formats_text(const ConvertResult& result);

}  // namespace optserve::converter
