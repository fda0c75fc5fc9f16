#include "converter/formats/metaseq_settings.h"

namespace optserve::converter {
namespace {

using checkpoint::PickleDocument;
using checkpoint::ValueId;
using checkpoint::ValueKind;

// A member of a Namespace or dictionary, or of an omegaconf container, whose nodes wrap values in "_content" and
// "_val".
std::optional<ValueId> member(const PickleDocument& document, ValueId holder, std::string_view key) {
  if (const auto direct = document.find(holder, key)) return direct;
  const auto content = document.find(holder, "_content");
  if (!content) return std::nullopt;
  const auto node = document.find(*content, key);
  if (!node) return std::nullopt;
  if (document.kind(*node) == ValueKind::kOpaque) {
    if (const auto value = document.find(*node, "_val")) return value;
  }
  return node;
}

}  // namespace

std::optional<ValueId> find_setting(const PickleDocument& document, std::string_view section, std::string_view key) {
  if (const auto cfg = document.find(document.root(), "cfg")) {
    if (const auto holder = member(document, *cfg, section)) {
      if (const auto value = member(document, *holder, key)) return value;
    }
  }
  if (const auto args = document.find(document.root(), "args")) return member(document, *args, key);
  return std::nullopt;
}

std::optional<int64_t> integer_setting(const PickleDocument& document, std::string_view section, std::string_view key) {
  const auto value = find_setting(document, section, key);
  if (!value) return std::nullopt;
  const ValueKind kind = document.kind(*value);
  if (kind != ValueKind::kInt && kind != ValueKind::kBool) return std::nullopt;
  return document.integer(*value);
}

}  // namespace optserve::converter
