// A checkpoint of another system: its files, opened, and the tensors in them under the names that the files use. Every
// opener of this folder (metaseq.h, huggingface.h, faster_transformer.h) fills in one of these. What the tensors mean
// to us is the business of ForeignModel (foreign_model.h).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/manifest/manifest.h"
#include "converter/formats/foreign_tensor.h"
#include "model_spec/opt_config.h"

namespace optserve::converter {

// Tensors of one model-parallel part by their Metaseq names ("decoder.layers.0.fc1.weight"). Openers of other systems
// rename theirs.
using ForeignPart = std::map<std::string, std::unique_ptr<ForeignTensor>>;

// A size that a configuration file states; the tensors must have it too.
struct SizeClaim {
  std::string file;
  std::string key;  // "decoder_layers"
  int64_t value = 0;
  int64_t model_spec::OptConfig::*size = nullptr;
};

// What a checkpoint says about itself outside of its tensors. Everything is optional: files without it exist.
struct ForeignHints {
  std::optional<int64_t> num_heads;
  std::string num_heads_key;                   // where that stands: "config.json: num_attention_heads"
  std::optional<int64_t> model_parallel_size;  // not always correct after tools have split a checkpoint anew
  std::optional<bool> norm_before;
  std::optional<bool> tied_output;
  bool final_norm = true;        // false: none follows the last layer, though norms come before the blocks
  bool has_biases = true;        // false: the files hold none
  bool has_affine_norms = true;  // false: the files hold no weights and biases of norms
  model_spec::Activation activation = model_spec::Activation::kRelu;
  std::vector<SizeClaim> sizes;
  std::optional<int64_t> bos_id, pad_id;
  std::vector<int64_t> eos_ids;    // any of them ends a text; empty: not said
  std::vector<std::string> notes;  // settings that are not honoured, as warnings for people
};

// Opened files. Nobody has checked yet that their tensors make up a model.
struct ForeignCheckpoint {
  std::string kind;    // "metaseq", "huggingface" or "faster_transformer"
  std::string layout;  // "2 model-parallel parts, flattened"
  std::vector<std::unique_ptr<checkpoint::PtFile>> pt_files;
  std::vector<std::unique_ptr<checkpoint::InputFile>> plain_files;  // without checksums
  std::vector<ForeignPart> parts;
  std::map<std::string, std::string> file_names;  // of tensors that the files call otherwise, for messages
  int64_t unused_position_rows = 2;  // in front of the position table: the first token of a text uses row 2
  bool is_vocab_whole = false;       // each part has the whole token table instead of its share of the rows
  ForeignHints hints;
  std::vector<checkpoint::SourceFile> files;
  std::vector<std::string> warnings;
};

}  // namespace optserve::converter
