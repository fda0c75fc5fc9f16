// What an OPT model is: its sizes, a few flags (where the norms are, whether logits use the token table), its
// activation and its special ids. Relatives without biases or without norm weights count as the same model with zeros
// and ones in their place, which conversion writes.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"

namespace optserve::model_spec {

enum class Activation : uint8_t {
  kRelu,
  kGelu,  // x/2 (1 + erf(x / sqrt 2)): Galactica
};

struct OptConfig {
  std::string name;           // "opt-125m", or the name of a model of your own: [A-Za-z0-9._-]{1,64}
  int64_t num_layers = 0;     // L
  int64_t hidden = 0;         // h, width of the residual stream
  int64_t num_heads = 0;      // H; head_dim = h / H
  int64_t ffn = 0;            // f, inner width of the feed-forward part
  int64_t vocab = 0;          // V, rows of the token table, padding rows included
  int64_t vocab_real = 0;     // ids at or above this are padding rows and are never sampled
  int64_t vocab_padding = 0;  // rows of zeros that conversion added at the end of the tables, for the shards
  int64_t embed_dim = 0;      // width of the token table: h, or 512 in OPT-350M
  int64_t max_positions = 0;  // longest sequence, the leading </s> included; the two unused rows are not counted
  bool norm_before = true;    // norms before attention and ffn and one after the last layer; false: OPT-350M
  bool tied_output = true;    // logits use the token table; false: they have a table of their own
  bool final_norm = true;     // with norm_before: a norm follows the last layer; false: early fine-tuned copies
  Activation activation = Activation::kRelu;
  TokenId bos_id = 2;                      // the id that starts every prompt (OPT uses </s>)
  bool leads_with_bos = true;              // false: prompts of text get no leading id (Galactica)
  TokenId eos_id = 2;                      // the id that ends a text
  std::vector<TokenId> more_eos_ids = {};  // further ids that end a text, up to kMoreEosIdsMax, ascending
  TokenId pad_id = 1;                      // never sampled; may be a row that is no token

  int64_t head_dim() const { return hidden / num_heads; }
  bool has_projections() const { return embed_dim != hidden; }  // project_in and project_out exist
  bool has_final_norm() const { return norm_before && final_norm; }
  int64_t vocab_stored() const { return vocab - vocab_padding; }  // rows of the source's table

  bool operator==(const OptConfig&) const = default;
};

inline constexpr size_t kMoreEosIdsMax = 7;

// Refuses sizes that are out of range or inconsistent; the refusal names the field, the value and what it must be.
Status validate(const OptConfig& config);

// The number of elements of all tensors of the table in opt_tensors.h.
int64_t parameter_count(const OptConfig& config);
// The count in OPT's publications, which includes the two unused rows of the position table.
int64_t published_parameter_count(const OptConfig& config);
// Key/value cache bytes of one token over all layers at `bytes_per_element`.
int64_t kv_bytes_per_token(const OptConfig& config, int64_t bytes_per_element);

// True if `world` ranks can share the model: it divides heads, ffn and vocabulary.
bool is_legal_world(const OptConfig& config, int64_t world);
// All legal tensor-parallel sizes up to limits::kWorldSizeMax, ascending; always starts with 1.
std::vector<int> legal_worlds(const OptConfig& config);
// "1, 2, 4": for messages.
std::string legal_worlds_text(const OptConfig& config);

// The same model with its tables padded to a multiple of `world` rows.
OptConfig with_padded_vocab(const OptConfig& config, int64_t world);

// The published family, "opt-125m" to "opt-175b", smallest first.
std::span<const OptConfig> published_configs();
const OptConfig* find_published(std::string_view name);  // nullptr if unknown
// The published model with this number of layers and this width, or nullptr. The weights alone do not show the number
// of heads.
const OptConfig* find_published(int64_t num_layers, int64_t hidden);

// JSON is an object with one key per field, named like the field. Fields that only OPT's relatives need are left out if
// they have their usual value. config_from_json() refuses unknown, missing and wrongly typed keys and validates the
// result.
std::string_view activation_name(Activation activation);  // "relu", "gelu"
nlohmann::json to_json(const OptConfig& config);
Result<OptConfig> config_from_json(const nlohmann::json& json);

}  // namespace optserve::model_spec
