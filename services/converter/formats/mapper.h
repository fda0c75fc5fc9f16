// Finds the foreign tensors behind each entry of the tensor table.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "converter/formats/foreign_model.h"

namespace optserve::converter {

inline constexpr std::string_view kOutputProjection = "decoder.output_projection.weight";  // Metaseq's name

class Mapper {
 public:
  Mapper(const ForeignCheckpoint& foreign, const model_spec::OptConfig& config) : foreign_(foreign), config_(config) {}
  // Maps the table. The refusal names everything that is missing, unexpected or of a wrong shape.
  Result<std::map<std::string, ForeignModel::Mapping>> run();

 private:
  using Shape = std::vector<int64_t>;

  ForeignModel::Mapping map_tensor(const model_spec::TensorSpec& spec);
  ForeignModel::Mapping map_qkv(const model_spec::TensorSpec& spec, const std::string& prefix, const std::string& leaf);
  void map_part(const model_spec::TensorSpec& spec, const std::string& name, size_t part,
                ForeignModel::Mapping& mapping);
  // The tensor if it exists in the part and has the shape; otherwise notes a fault and returns nullptr.
  ForeignTensor* expect(size_t part, const std::string& name, const Shape& shape);
  void note_unexpected();
  std::string part_text(size_t part) const;

  const ForeignCheckpoint& foreign_;
  const model_spec::OptConfig& config_;
  std::set<std::string> used_;
  std::vector<std::string> faults_;
};

// The Metaseq name of a canonical tensor ("final_norm.weight" is "decoder.layer_norm.weight"); for "...attention.qkv.x"
// the fused name.
std::string metaseq_name(const std::string& canonical);

// How the files call the tensor of a Metaseq name, or would call it, for messages.
std::string file_spelling(const ForeignCheckpoint& foreign, const std::string& metaseq_name);

// Adds the zeros and ones that stand for what relatives of OPT do not have: biases, and the weights of norms. Refused
// if the files hold what their configuration says is not there.
Status add_absent(ForeignCheckpoint& foreign, const model_spec::OptConfig& config);

// A line for messages if the configuration gives another number of parts than there are; else empty.
std::string other_part_count(const ForeignCheckpoint& foreign);

}  // namespace optserve::converter
