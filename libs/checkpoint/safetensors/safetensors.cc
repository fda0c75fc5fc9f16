#include "checkpoint/safetensors/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/utf8.h"
#include "checkpoint/io/strict_json.h"

namespace optserve::checkpoint {
namespace {

using nlohmann::json;

Refusal bad_safetensors(const ByteSource& file, const std::string& what) {
  return refuse(ErrorCode::kDataCorrupt, file.name() + ": not a valid safetensors file: " + what);
}

uint64_t load_u64(const std::byte* from) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = (value << 8) | static_cast<uint64_t>(from[i]);
  return value;
}

std::optional<uint64_t> as_u63(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto number = value.get<uint64_t>();
  if (number > INT64_MAX) return std::nullopt;
  return number;
}

// One entry of the header; offsets are still relative to the start of the data.
Result<StoredTensor> parse_entry(const ByteSource& file, const std::string& name, const json& entry) {
  const auto fault = [&](const std::string& what) { return bad_safetensors(file, "tensor '" + name + "': " + what); };
  if (name.empty() || name.size() > kStoredNameMax) {
    return bad_safetensors(file, "a tensor name that is empty or too long");
  }
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets")) {
    return fault("expected exactly dtype, shape and data_offsets");
  }
  StoredTensor tensor;
  tensor.name = name;
  const json& type = entry["dtype"];
  const auto dtype = type.is_string() ? parse_dtype(type.get_ref<const std::string&>()) : std::nullopt;
  if (!dtype) return fault("unknown dtype " + type.dump().substr(0, 40));
  tensor.dtype = *dtype;
  const json& shape = entry["shape"];
  if (!shape.is_array() || shape.size() > kStoredDimsMax) return fault("shape must have at most 8 numbers");
  for (const json& size : shape) {
    const auto number = as_u63(size);
    if (!number) return fault("shape holds " + size.dump().substr(0, 40));
    tensor.shape.push_back(static_cast<int64_t>(*number));
  }
  const json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !as_u63(offsets[0]) || !as_u63(offsets[1])) {
    return fault("data_offsets must be two numbers");
  }
  const uint64_t begin = *as_u63(offsets[0]);
  const uint64_t end = *as_u63(offsets[1]);
  const auto bytes = checked_bytes(tensor.shape, tensor.dtype);
  if (begin > end || !bytes || *bytes != end - begin) {
    return fault("shape " + shape_text(tensor.shape) + " of " + std::string(dtype_name(tensor.dtype)) +
                 " does not have the bytes " + std::to_string(begin) + " to " + std::to_string(end));
  }
  tensor.offset = begin;
  tensor.bytes = *bytes;
  return tensor;
}

Status parse_metadata(const ByteSource& file, const json& value, SafetensorsHeader& header) {
  if (!value.is_object()) return bad_safetensors(file, "__metadata__ must be an object");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) return bad_safetensors(file, "__metadata__ holds something that is not text");
    header.metadata[key] = text.get<std::string>();
  }
  return ok_status();
}

// Sorts the tensors by offset, makes offsets absolute, and refuses gaps, overlaps and a wrong end.
Status place(const ByteSource& file, SafetensorsHeader& header) {
  std::sort(header.tensors.begin(), header.tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  uint64_t next = 0;
  for (StoredTensor& tensor : header.tensors) {
    if (tensor.offset != next) {
      return bad_safetensors(file, "tensor '" + tensor.name + "' begins at byte " + std::to_string(tensor.offset) +
                                       " of the data, expected " + std::to_string(next));
    }
    next += tensor.bytes;  // no overflow: each end was checked to be below 2^63, and they do not overlap
    tensor.offset += header.data_begin;
    header.index.emplace(tensor.name, header.index.size());
  }
  if (header.data_begin + next != file.size()) {
    return bad_safetensors(file, "its header describes " + std::to_string(header.data_begin + next) +
                                     " bytes, the file has " + std::to_string(file.size()));
  }
  return ok_status();
}

}  // namespace

const StoredTensor* SafetensorsHeader::find(std::string_view name) const {
  const auto found = index.find(std::string(name));
  return found == index.end() ? nullptr : &tensors[found->second];
}

Result<SafetensorsHeader> read_safetensors(const ByteSource& file) {
  std::array<std::byte, 8> prefix{};
  if (file.size() < prefix.size()) return bad_safetensors(file, "it has " + std::to_string(file.size()) + " bytes");
  file.read_at(0, prefix);
  const uint64_t length = load_u64(prefix.data());
  if (length > kSafetensorsHeaderMax || length > file.size() - prefix.size()) {
    return bad_safetensors(file, "header length " + std::to_string(length) + " exceeds the file or 16 MiB");
  }
  std::string text(length, '\0');
  file.read_at(prefix.size(), std::as_writable_bytes(std::span(text)));
  Result<json> parsed = parse_json_strict(text, file.name() + ": the header", 3);
  if (!parsed.ok()) return parsed.refusal();
  if (!parsed.value().is_object()) return bad_safetensors(file, "the header must be an object");
  if (parsed.value().size() > kStoredTensorsMax) return bad_safetensors(file, "more than 100000 tensors");
  SafetensorsHeader header;
  header.data_begin = prefix.size() + length;
  for (const auto& [name, entry] : parsed.value().items()) {
    if (name == "__metadata__") {
      if (Status status = parse_metadata(file, entry, header); !status.ok()) return status.refusal();
      continue;
    }
    Result<StoredTensor> tensor = parse_entry(file, name, entry);
    if (!tensor.ok()) return tensor.refusal();
    header.tensors.push_back(std::move(tensor).value());
  }
  if (Status status = place(file, header); !status.ok()) return status.refusal();
  return header;
}

std::string safetensors_header(std::vector<StoredTensor>& tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json json;
  if (!metadata.empty()) json["__metadata__"] = metadata;
  uint64_t relative = 0;
  for (StoredTensor& tensor : tensors) {
    const auto bytes = checked_bytes(tensor.shape, tensor.dtype);
    check(bytes.has_value(), "safetensors_header: shape of " + tensor.name);
    tensor.offset = relative;
    tensor.bytes = *bytes;
    relative += *bytes;
    json[tensor.name] = {{"dtype", dtype_name(tensor.dtype)},
                         {"shape", tensor.shape},
                         {"data_offsets", {tensor.offset, tensor.offset + tensor.bytes}}};
  }
  std::string text = json.empty() ? "{}" : json.dump();
  const uint64_t padded = (8 + text.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
  text.resize(padded - 8, ' ');
  check(text.size() <= kSafetensorsHeaderMax, "safetensors_header: too many tensors");
  std::string prefix;
  for (int i = 0; i < 8; ++i) prefix += static_cast<char>(text.size() >> (8 * i) & 0xff);
  for (StoredTensor& tensor : tensors) tensor.offset += padded;
  return prefix + text;
}

std::optional<uint64_t> checked_elements(const std::vector<int64_t>& shape) {
  uint64_t product = 1;
  for (int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (__builtin_mul_overflow(product, static_cast<uint64_t>(size), &product) || product > INT64_MAX) {
      return std::nullopt;
    }
  }
  return product;
}

std::optional<uint64_t> checked_bytes(const std::vector<int64_t>& shape, DType dtype) {
  const auto elements = checked_elements(shape);
  uint64_t bytes = 0;
  if (!elements || __builtin_mul_overflow(*elements, dtype_bytes(dtype), &bytes) || bytes > INT64_MAX) {
    return std::nullopt;
  }
  return bytes;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

}  // namespace optserve::checkpoint
