// What other systems call the tensors of a model, and how they cut them: the layouts that an export writes. Touches no
// files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model_spec/opt_tensors.h"
#include "tensor/dtype.h"

namespace optserve::converter {

// One tensor of an exported file, which holds a part of one of ours.
struct ExportTensor {
  std::string name;
  std::vector<int64_t> shape;
  model_spec::TensorSpec spec;
  model_spec::Block block;        // rows in the order in which they are written
  int64_t zero_rows = 0;          // written before them: the two position rows that no token uses
  std::optional<float> constant;  // the only element, instead of all of the above

  int64_t elements() const;
};

// As transformers' OPTForCausalLM names them; a tied head is not repeated.
std::vector<ExportTensor> huggingface_tensors(const model_spec::OptConfig& config);
std::string huggingface_config(const model_spec::OptConfig& config, DType dtype);

// Model-parallel part `part` of `parts` of Metaseq, unflattened: K, V, Q fused, or apart in models of OPT-350M's kind.
std::vector<ExportTensor> metaseq_tensors(const model_spec::OptConfig& config, int64_t part, int64_t parts);
// The pickle of that part's file; storage i holds tensors[i].
std::string metaseq_pickle(const model_spec::OptConfig& config, DType dtype, int64_t parts,
                           const std::vector<ExportTensor>& tensors);
// "reshard-model_part-1.pt"; "reshard.pt" for models of OPT-350M's kind.
std::string metaseq_file_name(const model_spec::OptConfig& config, int64_t part);
// Refuses a number of parts that the model cannot be cut into, or that Metaseq has no layout for.
Status check_metaseq_parts(const model_spec::OptConfig& config, int64_t parts);

// Tokenizer settings beside vocab.json and merges.txt; `vocabulary` is the text of the former.
struct HuggingFaceTokenizer {
  std::string tokenizer_config;    // tokenizer_config.json
  std::string special_tokens_map;  // special_tokens_map.json
};
Result<HuggingFaceTokenizer> huggingface_tokenizer(const model_spec::OptConfig& config, std::string_view vocabulary);

}  // namespace optserve::converter
