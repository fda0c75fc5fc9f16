#include "converter/formats/huggingface_names.h"

#include <algorithm>
#include <array>

namespace optserve::converter {
namespace {

// DistributedDataParallel, torch.compile, Lightning and DeepSpeed, PEFT, TRL; and within names FSDP and activation
// checkpointing. What stays inside of them is the model's own name.
constexpr std::array<std::string_view, 5> kOuterWrappers = {"module.", "_orig_mod.", "_forward_module.",
                                                            "base_model.model.", "pretrained_model."};
constexpr std::array<std::string_view, 3> kInnerWrappers = {"_orig_mod.", "_fsdp_wrapped_module.",
                                                            "_checkpoint_wrapped_module."};

constexpr std::array<std::string_view, 4> kHeads = {"lm_head.weight", "output_projection.weight", "embed_out.weight",
                                                    "decoder.lm_head.weight"};

using NameChange = std::pair<std::string_view, std::string_view>;
constexpr std::array<NameChange, 3> kNameChanges = {{{"decoder.final_layer_norm.", "decoder.layer_norm."},
                                                     {"decoder.project_in.", "decoder.project_in_dim."},
                                                     {"decoder.project_out.", "decoder.project_out_dim."}}};

constexpr std::array<std::string_view, 4> kOtherHeads = {"v_head.", "score.", "qa_outputs.", "classifier."};

struct OtherKind {
  std::string_view mark;  // in the name of a tensor
  std::string_view what;
};
constexpr std::array<OtherKind, 10> kOtherKinds = {
    {{"lora_",
      "an adapter that is not merged into the model; merge it first (merge_and_unload of PEFT) and save again"},
     {".base_layer.", "a model with an adapter in it; merge it first (merge_and_unload of PEFT) and save again"},
     {"modules_to_save.", "a model with an adapter in it; merge it first (merge_and_unload of PEFT) and save again"},
     {"prompt_encoder.", "an adapter of prompt tuning, which cannot be merged and is not supported"},
     {".qweight", "weights that GPTQ or AWQ has quantised, which are not read; convert the model they were made from"},
     {".qzeros", "weights that GPTQ or AWQ has quantised, which are not read; convert the model they were made from"},
     {".g_idx", "weights that GPTQ has quantised, which are not read; convert the model they were made from"},
     {".absmax", "weights that bitsandbytes has quantised, which are not read; convert the model they were made from"},
     {".SCB", "weights that bitsandbytes has quantised, which are not read; convert the model they were made from"},
     {"._packed_params",
      "weights that PyTorch has quantised, which are not read; convert the model they were made from"}}};

bool cut_prefix(std::string& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return false;
  name.erase(0, prefix.size());
  return true;
}

bool holds(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace

std::string metaseq_spelling(std::string name) {
  while (std::ranges::any_of(kOuterWrappers, [&](std::string_view wrapper) { return cut_prefix(name, wrapper); })) {
  }
  for (const std::string_view wrapper : kInnerWrappers) {
    for (size_t at = name.find(wrapper); at != std::string::npos; at = name.find(wrapper)) {
      name.erase(at, wrapper.size());
    }
  }
  cut_prefix(name, "model.");
  if (std::ranges::find(kHeads, name) != kHeads.end()) return "decoder.output_projection.weight";
  if (is_head_of_another_task(name)) return name;
  if (!name.starts_with("decoder.")) name.insert(0, "decoder.");
  for (const auto& [theirs, metaseq] : kNameChanges) {
    if (name.starts_with(theirs)) return std::string(metaseq) + name.substr(theirs.size());
  }
  return name;
}

std::string huggingface_spelling(const std::string& metaseq_name) {
  if (metaseq_name == "decoder.output_projection.weight") return "lm_head.weight";
  for (const auto& [theirs, metaseq] : kNameChanges) {
    if (metaseq_name.starts_with(metaseq)) return "model." + std::string(theirs) + metaseq_name.substr(metaseq.size());
  }
  return "model." + metaseq_name;
}

bool is_head_of_another_task(std::string_view name) {
  return std::ranges::any_of(kOtherHeads, [&](std::string_view head) { return name.starts_with(head); });
}

Status check_kind_of_tensor(const std::string& file, const std::string& name) {
  for (const auto& [mark, what] : kOtherKinds) {
    if (holds(name, mark)) {
      return refuse(ErrorCode::kUnsupportedFormat, file + ": holds " + name + ", a part of " + std::string(what));
    }
  }
  return ok_status();
}

}  // namespace optserve::converter
