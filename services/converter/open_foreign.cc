// Which files make up the foreign checkpoint that a path names.
#include <glob.h>

#include <algorithm>
#include <filesystem>

#include "converter/huggingface_source.h"
#include "converter/metaseq_source.h"
#include "converter/source.h"

namespace optserve::converter {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder, fs::directory_options::skip_permission_denied)) {
    std::error_code ignored;
    if (entry.is_regular_file(ignored)) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

template <class Predicate>
std::vector<std::string> chosen(const std::vector<std::string>& files, Predicate keep) {
  std::vector<std::string> list;
  std::copy_if(files.begin(), files.end(), std::back_inserter(list), keep);
  return list;
}

bool is_weight_name(const std::string& path, const char* start, const char* end) {
  const std::string name = fs::path(path).filename().string();
  return name.starts_with(start) && name.ends_with(end);
}

Result<ForeignCheckpoint> open_folder(const std::string& folder) {
  const std::vector<std::string> files = files_in(folder);
  if (fs::exists(fs::path(folder) / "config.json")) {
    auto weights = chosen(files, [](const auto& path) { return is_weight_name(path, "model", ".safetensors"); });
    if (weights.empty())
      weights = chosen(files, [](const auto& path) { return is_weight_name(path, "pytorch_model", ".bin"); });
    if (!weights.empty()) return open_huggingface(folder, weights);
  }
  const auto parts = chosen(files, [](const auto& path) { return parse_metaseq_name(path).has_value(); });
  if (!parts.empty()) return open_metaseq(parts);
  std::string found;
  for (size_t i = 0; i < std::min<size_t>(files.size(), 5); ++i)
    found += (i > 0 ? ", " : "") + fs::path(files[i]).filename().string();
  return refuse(ErrorCode::kUnsupportedFormat,
                folder +
                    ": expected Metaseq parts (*.pt) or a Hugging Face folder (config.json with model*.safetensors "
                    "or pytorch_model*.bin), found " +
                    (found.empty() ? "no files" : found + (files.size() > 5 ? ", ..." : "")));
}

std::vector<std::string> expand_glob(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (size_t i = 0; i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
  globfree(&found);
  return paths;
}

// The files beside `path` that belong to the same set: X-model_part-0.pt or the virtual X.pt name all of X's.
std::vector<std::string> siblings(const std::string& path) {
  const auto wanted = parse_metaseq_name(path);
  const fs::path folder = fs::path(path).has_parent_path() ? fs::path(path).parent_path() : fs::path(".");
  std::error_code ignored;
  if (!wanted || !fs::is_directory(folder, ignored)) return {};
  return chosen(files_in(folder), [&](const std::string& other) {
    const auto file = parse_metaseq_name(other);
    return file && file->stem == wanted->stem;
  });
}

}  // namespace

Result<ForeignCheckpoint> open_foreign(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return open_folder(path);
  const std::string name = fs::path(path).filename().string();
  if (path.find_first_of("*?[") != std::string::npos) {
    const std::vector<std::string> paths = expand_glob(path);
    if (paths.empty()) return refuse(ErrorCode::kBadRequest, path + ": no file matches");
    return open_metaseq(paths);
  }
  if (name.ends_with(".safetensors") || name.ends_with(".bin"))
    return refuse(ErrorCode::kBadRequest, path + ": give the folder that holds this file and its config.json");
  if (fs::exists(path, ignored) && name.find("-model_part-") == std::string::npos &&
      name.find("-shard") == std::string::npos)
    return open_metaseq({path});
  const std::vector<std::string> paths = siblings(path);
  if (paths.empty()) return refuse(ErrorCode::kBadRequest, path + ": no such file, and no parts of that name");
  return open_metaseq(paths);
}

}  // namespace optserve::converter
