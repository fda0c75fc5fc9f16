// Settings of the training run inside a Metaseq file: cfg.<section>.<key>, else args.<key>. Namespaces, dictionaries
// and omegaconf containers are understood.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "checkpoint/torch/pickle.h"

namespace optserve::converter {

// nullopt where the file does not have the setting.
std::optional<checkpoint::ValueId> find_setting(const checkpoint::PickleDocument& document, std::string_view section,
                                                std::string_view key);
// The same for a number or a truth value; nullopt for values of other types, too.
std::optional<int64_t> integer_setting(const checkpoint::PickleDocument& document, std::string_view section,
                                       std::string_view key);

}  // namespace optserve::converter
