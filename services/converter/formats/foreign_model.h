// A foreign checkpoint as the converter sees it: the tensors of model_spec's table, whatever the files look like.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/manifest/manifest.h"
#include "converter/formats/foreign_tensor.h"
#include "model_spec/opt_tensors.h"

namespace optserve::converter {

// Tensors of one model-parallel part by their Metaseq names ("decoder.layers.0.fc1.weight").
using ForeignPart = std::map<std::string, std::unique_ptr<ForeignTensor>>;

// A size that a configuration states; the tensors must have it too.
struct SizeClaim {
  std::string file;
  std::string key;  // "decoder_layers"
  int64_t value = 0;
  int64_t model_spec::OptConfig::*size = nullptr;
};

// What a checkpoint says about itself outside of its tensors. Everything is optional: files without it exist.
struct ForeignHints {
  std::optional<int64_t> num_heads;
  std::optional<int64_t> model_parallel_size;  // tools that re-split do not always keep it right
  std::optional<bool> norm_before;
  std::optional<bool> tied_output;
  std::vector<SizeClaim> sizes;
  std::optional<int64_t> bos_id, eos_id, pad_id;
};

// Opened files, before anything is known about their completeness.
struct ForeignCheckpoint {
  std::string kind;    // "metaseq", "huggingface" or "faster_transformer"
  std::string layout;  // "2 model-parallel parts, flattened"
  std::vector<std::unique_ptr<checkpoint::PtFile>> pt_files;
  std::vector<std::unique_ptr<checkpoint::InputFile>> plain_files;  // without checksums
  std::vector<ForeignPart> parts;
  int64_t unused_position_rows = 2;  // in front of the position table: the first token of a text uses row 2
  bool is_vocab_whole = false;       // each part has the whole token table, not its share of the rows
  ForeignHints hints;
  std::vector<checkpoint::SourceFile> files;
  std::vector<std::string> warnings;
};

// Recognises the layout of `path` (a folder, a file, a glob, or Metaseq's virtual X.pt for X-model_part-J.pt) and opens
// every file of it. Refuses what is no OPT of Metaseq, Hugging Face or FasterTransformer, incomplete sets of files, and
// models with features that OPT does not have.
Result<ForeignCheckpoint> open_foreign(const std::string& path);

// The model's sizes, from the shapes of its tensors; `num_heads` 0: as the files say or as the published model of these
// sizes has it. Refuses, all faults together, what the files' configurations state otherwise.
Result<model_spec::OptConfig> infer_config(const ForeignCheckpoint& foreign, const std::string& name,
                                           int64_t num_heads);

// Reads the tensors of the table. Rows of the canonical tensors are gathered from wherever they lie.
class Source {
 public:
  // Refuses, all faults together, when tensors are missing, unexpected, or of another shape than `config` demands.
  // An output projection that equals the token table is dropped; another one makes config().tied_output false.
  static Result<Source> open(ForeignCheckpoint foreign, const model_spec::OptConfig& config);

  const ForeignCheckpoint& foreign() const { return foreign_; }
  const model_spec::OptConfig& config() const { return config_; }
  // The type all tensors share, or F32 if they differ.
  tensor::DType natural_dtype() const;
  tensor::DType dtype(const model_spec::TensorSpec& spec) const;

  // Compares the bytes behind a tensor with their checksums, where the format has them. Refuses parts whose copies of
  // it differ by more than training lets them drift apart: they are of different checkpoints.
  Status check_bytes(const model_spec::TensorSpec& spec) const;
  // Rows [row, row + count) of the canonical tensor, all columns, in dtype(spec).
  void read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count, std::span<std::byte> out) const;
  // True unless a tensor that every part has whole differs between parts.
  bool replicas_agree(const model_spec::TensorSpec& spec) const;
  // Refuses if a file changed since it was opened.
  Status check_unchanged() const;

 private:
  // Rectangle of a canonical tensor that comes from rows of one foreign tensor.
  struct Region {
    ForeignTensor* tensor = nullptr;
    int64_t tensor_row = 0;
    int64_t row = 0;
    int64_t rows = 0;
    int64_t column = 0;
  };
  struct Mapping {
    std::vector<Region> regions;   // cover the tensor exactly
    std::vector<Region> replicas;  // further whole copies
  };
  friend class Mapper;

  const Mapping& mapping(const model_spec::TensorSpec& spec) const { return mappings_.at(spec.name); }
  bool output_is_tied() const;
  Status check_replicas(const model_spec::TensorSpec& spec) const;
  Status settle_output();

  ForeignCheckpoint foreign_;
  model_spec::OptConfig config_;
  std::map<std::string, Mapping> mappings_;
};

}  // namespace optserve::converter
