// The model in a foreign checkpoint: the tensors of model_spec's table, gathered from wherever the files hold them.
// Lives in the process that parses the files; the converter talks to it through a CagedModel (reader/caged_model.h).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "conversion/command_options.h"
#include "converter/formats/foreign_checkpoint.h"
#include "converter/weight_rows.h"

namespace optserve::converter {

class ForeignModel final : public WeightRows {
 public:
  // Refuses tensors that are missing, unexpected, or of another shape than `config` demands, all faults together. An
  // output projection that equals the token table is dropped; any other makes config().tied_output false, and is
  // refused if the configuration says that it is the table, unless `head` chooses one of the two.
  static Result<ForeignModel> open(ForeignCheckpoint foreign, const model_spec::OptConfig& config,
                                   conversion::OutputHead head = conversion::OutputHead::kAuto);

  const ForeignCheckpoint& foreign() const { return foreign_; }
  const model_spec::OptConfig& config() const override { return config_; }
  // The type all tensors share, or F32 if they differ.
  DType natural_dtype() const;
  DType dtype(const model_spec::TensorSpec& spec) const override;

  // Compares the bytes behind a tensor with their checksums, where the format has them. Refuses parts whose copies of
  // it differ by more than training lets them drift apart: they are of different checkpoints.
  Status check_bytes(const model_spec::TensorSpec& spec) const;
  void read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                 std::span<std::byte> out) const override;
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
  Status settle_output(conversion::OutputHead head);

  ForeignCheckpoint foreign_;
  model_spec::OptConfig config_;
  std::map<std::string, Mapping> mappings_;
};

}  // namespace optserve::converter
