// What the names in a pickle mean to the reader.
#pragma once

#include <optional>
#include <string_view>

#include "tensor/dtype.h"

namespace optserve::checkpoint {

enum class GlobalRole { kOrderedDict, kRebuildTensor, kRebuildParameter, kTorchSize, kDangerous, kUnknown };

// `name` is "module.name". Dangerous: calling it would run code, reach the system, or build something that does.
GlobalRole role_of_global(std::string_view name);

// "torch.HalfStorage" to kF16, and so on; nullopt for anything else.
std::optional<DType> storage_dtype(std::string_view name);

// The name of an opcode that the reader refuses, for messages; empty if there is no such opcode.
std::string_view refused_opcode_name(unsigned char opcode);

}  // namespace optserve::checkpoint
