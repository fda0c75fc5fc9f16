#include "converter/formats/open_foreign.h"

#include <glob.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "converter/formats/faster_transformer/c_model.h"
#include "converter/formats/faster_transformer/part_files.h"
#include "converter/formats/huggingface.h"
#include "converter/formats/metaseq.h"

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

std::vector<std::string> pt_files(const std::vector<std::string>& files) {
  return chosen(files, [](const auto& path) { return parse_metaseq_name(path).has_value(); });
}

// Files of torch.save, told apart by what the first readable one holds.
Result<ForeignCheckpoint> open_pt(const std::vector<std::string>& paths) {
  std::optional<Refusal> unreadable;
  for (const std::string& path : paths) {
    const Result<std::unique_ptr<checkpoint::PtFile>> file = checkpoint::PtFile::open(path);
    if (file.ok()) return is_faster_transformer(*file.value()) ? open_faster_transformer(paths) : open_metaseq(paths);
    if (!unreadable) unreadable = file.refusal();
  }
  return *unreadable;
}

// Folders that hold something else, but are often taken for the model.
Status check_other_folders(const fs::path& folder, const std::vector<std::string>& files) {
  const auto unsupported = [&](const std::string& what) {
    return refuse(ErrorCode::kUnsupportedFormat, folder.string() + ": " + what);
  };
  std::error_code ignored;
  if (fs::is_directory(folder / "snapshots", ignored)) {
    const Result<std::string> revision = checkpoint::read_text_file((folder / "refs" / "main").string(), 256);
    std::string name = revision.ok() ? revision.value() : "";
    while (!name.empty() && std::isspace(static_cast<unsigned char>(name.back())) != 0) name.pop_back();
    return unsupported("is a cache folder of the Hugging Face hub; name its snapshot, " +
                       (folder / "snapshots" / (name.empty() ? "<revision>" : name)).string());
  }
  if (fs::exists(folder / "adapter_config.json", ignored)) {
    return unsupported("holds an adapter, not a model; merge it into its base model first (merge_and_unload of PEFT)");
  }
  if (fs::exists(folder / "zero_to_fp32.py", ignored)) {
    return unsupported("holds a checkpoint of DeepSpeed's ZeRO; run its zero_to_fp32.py and convert what that writes");
  }
  for (const std::string& file : files) {
    for (const char* ending : {".h5", ".msgpack", ".gguf", ".ggml", ".onnx"}) {
      if (file.ends_with(ending)) {
        return unsupported(fs::path(file).filename().string() +
                           " is not read; weights of PyTorch or safetensors files are needed");
      }
    }
  }
  return ok_status();
}

Result<ForeignCheckpoint> open_folder(const std::string& folder) {
  const Result<std::optional<HuggingFaceFiles>> weights = find_huggingface_files(folder);
  if (!weights.ok()) return weights.refusal();
  if (weights.value()) return open_huggingface(folder, *weights.value());
  const Result<std::optional<std::string>> c_model = find_c_model(folder);
  if (!c_model.ok()) return c_model.refusal();
  if (c_model.value()) return open_c_model(*c_model.value());
  const std::vector<std::string> files = files_in(folder);
  if (const auto parts = pt_files(files); !parts.empty()) return open_pt(parts);
  if (Status status = check_other_folders(folder, files); !status.ok()) return status.refusal();
  std::string found;
  for (size_t i = 0; i < std::min<size_t>(files.size(), 5); ++i) {
    found += (i > 0 ? ", " : "") + fs::path(files[i]).filename().string();
  }
  return refuse(ErrorCode::kUnsupportedFormat,
                folder +
                    ": expected parts of Metaseq or FasterTransformer (*.pt, or config.ini and *.bin), or a Hugging "
                    "Face folder (config.json "
                    "with model*.safetensors or pytorch_model*.bin), found " +
                    (found.empty() ? "no files" : found + (files.size() > 5 ? ", ..." : "")));
}

std::vector<std::string> expand_glob(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
  }
  globfree(&found);
  return paths;
}

fs::path folder_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : fs::path("."); }

// The files beside `path` that belong to the same set: X-model_part-0.pt or the virtual X.pt name all of X's.
std::vector<std::string> siblings(const std::string& path) {
  const auto wanted = parse_metaseq_name(path);
  const fs::path folder = folder_of(path);
  std::error_code ignored;
  if (!wanted || !fs::is_directory(folder, ignored)) return {};
  return chosen(files_in(folder), [&](const std::string& other) {
    const auto file = parse_metaseq_name(other);
    return file && file->stem == wanted->stem;
  });
}

// A single file: part-0.pt of FasterTransformer names all parts, any other file itself.
Result<ForeignCheckpoint> open_file(const std::string& path) {
  const Result<std::unique_ptr<checkpoint::PtFile>> file = checkpoint::PtFile::open(path);
  if (!file.ok()) return file.refusal();
  if (!is_faster_transformer(*file.value())) return open_metaseq({path});
  if (faster_transformer_part(path) < 0) return open_faster_transformer({path});
  const auto start = [](const std::string& other) {
    const std::string name = fs::path(other).stem().string();
    return name.substr(0, name.find_last_not_of("0123456789") + 1);
  };
  return open_faster_transformer(chosen(files_in(folder_of(path)), [&](const std::string& other) {
    return faster_transformer_part(other) >= 0 && start(other) == start(path);
  }));
}

}  // namespace

Result<ForeignCheckpoint> open_foreign(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return open_folder(path);
  const std::string name = fs::path(path).filename().string();
  if (path.find_first_of("*?[") != std::string::npos) {
    const std::vector<std::string> paths = expand_glob(path);
    if (paths.empty()) return refuse(ErrorCode::kBadRequest, path + ": no file matches");
    return open_pt(paths);
  }
  if (name.ends_with(".safetensors") || name.ends_with(".bin")) {
    return refuse(ErrorCode::kBadRequest, path + ": give the folder that holds this file and its config.json");
  }
  if (fs::exists(path, ignored) && name.find("-model_part-") == std::string::npos &&
      name.find("-shard") == std::string::npos) {
    return open_file(path);
  }
  const std::vector<std::string> paths = siblings(path);
  if (paths.empty()) return refuse(ErrorCode::kBadRequest, path + ": no such file, and no parts of that name");
  return open_metaseq(paths);
}

}  // namespace optserve::converter
