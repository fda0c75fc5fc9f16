#include "converter/formats/huggingface_files.h"

#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/io/byte_source.h"
#include "checkpoint/io/strict_json.h"

namespace optserve::converter {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kIndexBytesMax = 16 << 20;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

Result<HuggingFaceFiles> read_index(const fs::path& folder, const std::string& name) {
  const std::string path = (folder / name).string();
  const Result<std::string> text = checkpoint::read_text_file(path, kIndexBytesMax);
  if (!text.ok()) return text.refusal();
  Result<std::map<std::string, std::string>> index = parse_huggingface_index(text.value(), path);
  if (!index.ok()) return index.refusal();
  HuggingFaceFiles files;
  files.index = std::move(index).value();
  std::set<std::string> names;
  for (const auto& [tensor, file] : files.index) {
    if (names.insert(file).second && !is_file(folder / file)) {
      return refuse(ErrorCode::kBadRequest, path + ": " + file + " is missing");
    }
  }
  files.names.assign(names.begin(), names.end());
  return files;
}

// "model-00001-of-00002.safetensors" is {1, 2}; nullopt for other names.
std::optional<std::pair<int, int>> parse_shard(std::string name, const std::string& start, const std::string& end) {
  if (!name.starts_with(start + "-") || !name.ends_with(end)) return std::nullopt;
  name = name.substr(start.size() + 1, name.size() - start.size() - 1 - end.size());
  const char* stop = name.data() + name.size();
  std::pair<int, int> numbers;
  const auto first = std::from_chars(name.data(), stop, numbers.first);
  if (first.ec != std::errc() || !std::string_view(first.ptr, stop).starts_with("-of-")) return std::nullopt;
  const auto second = std::from_chars(first.ptr + 4, stop, numbers.second);
  return second.ec == std::errc() && second.ptr == stop ? std::optional(numbers) : std::nullopt;
}

// Shards without an index: all of them, by their names.
Result<HuggingFaceFiles> find_shards(const fs::path& folder, const std::string& start, const std::string& end) {
  std::map<int, std::string> shards;
  int count = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const auto numbers = parse_shard(name, start, end);
    if (!numbers || !is_file(entry.path())) continue;
    count = std::max(count, numbers->second);
    shards[numbers->first] = name;
  }
  HuggingFaceFiles files;
  for (int number = 1; number <= count; ++number) {
    if (!shards.contains(number)) {
      return refuse(ErrorCode::kBadRequest, folder.string() + ": shard " + std::to_string(number) + " of " +
                                                std::to_string(count) + " of " + start + "-*" + end + " is missing");
    }
    files.names.push_back(shards[number]);
  }
  if (shards.size() != files.names.size()) {
    return refuse(ErrorCode::kBadRequest, folder.string() + ": " + shards.rbegin()->second +
                                              " is there, but its number is not from 1 to " + std::to_string(count));
  }
  return files;
}

}  // namespace

Result<std::map<std::string, std::string>> parse_huggingface_index(std::string_view text, const std::string& path) {
  const Result<json> parsed = checkpoint::parse_json_strict(text, path, 4);
  if (!parsed.ok()) return parsed.refusal();
  const json map = parsed.value().is_object() ? parsed.value().value("weight_map", json()) : json();
  if (!map.is_object() || map.empty()) {
    return refuse(ErrorCode::kDataCorrupt, path + ": holds no object 'weight_map' of tensors and files");
  }
  std::map<std::string, std::string> index;
  for (const auto& [tensor, file] : map.items()) {
    const std::string where = file.is_string() ? file.get<std::string>() : "";
    if (where.empty() || where.find('/') != std::string::npos || where[0] == '.') {
      return refuse(ErrorCode::kDataCorrupt, path + ": tensor " + tensor.substr(0, 80) + " is in " +
                                                 file.dump().substr(0, 80) + ", which is not a file of the folder");
    }
    index[tensor] = where;
  }
  return index;
}

Result<std::optional<HuggingFaceFiles>> find_huggingface_files(const std::string& folder) {
  std::error_code ignored;
  if (!fs::exists(fs::path(folder) / "config.json", ignored)) return std::optional<HuggingFaceFiles>();
  for (const bool is_safetensors : {true, false}) {
    const std::string start = is_safetensors ? "model" : "pytorch_model";
    const std::string end = is_safetensors ? ".safetensors" : ".bin";
    HuggingFaceFiles files;
    if (is_file(fs::path(folder) / (start + end))) {
      files.names.push_back(start + end);
    } else {
      const std::string index = start + end + ".index.json";
      Result<HuggingFaceFiles> found =
          is_file(fs::path(folder) / index) ? read_index(folder, index) : find_shards(folder, start, end);
      if (!found.ok()) return found.refusal();
      files = std::move(found).value();
    }
    files.is_safetensors = is_safetensors;
    if (!files.names.empty()) return std::optional(std::move(files));
  }
  return std::optional<HuggingFaceFiles>();
}

}  // namespace optserve::converter
