#include "cli/doctor/preflight.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "checkpoint/manifest/manifest.h"
#include "checkpoint/reader.h"

namespace optserve::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kNamesShown = 8;

// What a folder contains, for somebody who has mistyped a name.
std::string listing(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename();
    if (!name.starts_with('.')) names.push_back(name);
  }
  if (error) return folder.string() + ": " + error.message();
  if (names.empty()) return folder.string() + " is empty";
  std::ranges::sort(names);
  std::string text = folder.string() + " holds";
  for (size_t i = 0; i < std::min(names.size(), kNamesShown); ++i) text += (i == 0 ? " " : ", ") + names[i];
  return names.size() > kNamesShown ? text + " and " + std::to_string(names.size() - kNamesShown) + " more" : text;
}

}  // namespace

Result<std::string> missing_of_model(const std::string& name_and_folder, int world) {
  const size_t equals = name_and_folder.find('=');
  const fs::path folder = equals == std::string::npos ? name_and_folder : name_and_folder.substr(equals + 1);
  if (folder.empty()) return refuse(ErrorCode::kBadRequest, "model is '" + name_and_folder + "', expected NAME=FOLDER");
  std::error_code ignored;
  if (!fs::exists(folder / checkpoint::kManifestName, ignored)) {
    const fs::path parent = folder.has_parent_path() ? folder.parent_path() : fs::path(".");
    const bool is_under_way = fs::exists(parent / ("." + folder.filename().string() + ".staging"), ignored);
    return folder.string() + " has no " + std::string(checkpoint::kManifestName) + ": " +
           (is_under_way ? "it is being converted" : "it is not converted; " + listing(parent));
  }
  const auto reader = checkpoint::CheckpointReader::open(folder.string());
  if (!reader.ok()) return folder.string() + " is not complete: " + reader.refusal().message;
  if (const Status fits = reader.value().check_world(world); !fits.ok()) return fits.refusal();
  return std::string();
}

Status check_shared_memory(const std::string& folder, int64_t mib_wanted) {
  struct statvfs system {};
  const bool is_there = statvfs(folder.c_str(), &system) == 0;
  const int64_t mib = is_there ? static_cast<int64_t>(system.f_blocks * system.f_frsize >> 20) : 0;
  if (mib >= mib_wanted) return ok_status();
  return refuse(ErrorCode::kBadRequest, folder + " holds " + std::to_string(mib) + " MiB, and a group of GPUs needs " +
                                            std::to_string(mib_wanted) +
                                            ": mount an emptyDir of medium Memory there, or use --shm-size");
}

}  // namespace optserve::cli
