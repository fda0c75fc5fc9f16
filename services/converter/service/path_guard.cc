#include "converter/service/path_guard.h"

#include <algorithm>
#include <filesystem>

#include "base/program.h"

namespace optserve::converter {
namespace {

namespace fs = std::filesystem;

bool has_wildcard(const std::string& name) { return name.find_first_of("*?[") != std::string::npos; }

}  // namespace

PathGuard::PathGuard(const std::vector<std::string>& roots) {
  for (const std::string& root : roots) {
    std::error_code code;
    const fs::path canonical = fs::canonical(root, code);
    if (code || !fs::is_directory(canonical)) {
      throw ConfigurationError("root: expected a folder, found '" + root + "'" + (code ? ": " + code.message() : ""));
    }
    roots_.push_back(canonical.string());
  }
}

bool PathGuard::is_inside(const std::string& canonical) const {
  return std::any_of(roots_.begin(), roots_.end(), [&](const std::string& root) {
    if (!canonical.starts_with(root)) return false;
    return canonical.size() == root.size() || root.back() == '/' || canonical[root.size()] == '/';
  });
}

Refusal PathGuard::outside(const char* field, const std::string& path) const {
  std::string roots;
  for (const std::string& root : roots_) roots += (roots.empty() ? "" : ", ") + root;
  return refuse(ErrorCode::kBadRequest,
                std::string(field) + ": '" + path + "' leads outside the folders of this converter" +
                    (roots.empty() ? ", which was started without --root" : " (" + roots + ")"));
}

Result<std::string> PathGuard::resolve_source(const std::string& source) const {
  const fs::path wanted = fs::path(roots_.front()) / source;  // an absolute path replaces the root
  const bool glob = has_wildcard(wanted.filename().string());
  std::error_code code;
  const fs::path existing = fs::canonical(glob ? wanted.parent_path() : wanted, code);
  if (code) return refuse(ErrorCode::kNotFound, "source: '" + source + "': " + code.message());
  if (!is_inside(existing.string())) return outside("source", source);
  if (!fs::is_directory(existing, code)) return existing.string();
  for (fs::directory_iterator entry(existing, code), end; !code && entry != end; entry.increment(code)) {
    if (!entry->is_symlink()) continue;
    std::error_code broken;  // a link to nowhere leads nowhere
    const fs::path target = fs::canonical(entry->path(), broken);
    if (!broken && !is_inside(target.string())) return outside("source", entry->path().string());
  }
  if (code) return refuse(ErrorCode::kNotFound, "source: '" + source + "': " + code.message());
  return glob ? (existing / wanted.filename()).string() : existing.string();
}

Result<std::string> PathGuard::resolve_destination(const std::string& destination) const {
  fs::path wanted = (fs::path(roots_.front()) / destination).lexically_normal();
  if (!wanted.has_filename()) wanted = wanted.parent_path();  // "folder/"
  std::error_code code;
  const fs::path parent = fs::weakly_canonical(wanted.parent_path(), code);  // its last folders may be missing
  if (code) return refuse(ErrorCode::kNotFound, "destination: the folder of '" + destination + "': " + code.message());
  const std::string name = wanted.filename().string();
  if (!is_inside(parent.string()) || name.empty() || name == "." || name == "..") {
    return outside("destination", destination);
  }
  return (parent / name).string();
}

Result<protocol::ConvertSpec> PathGuard::resolve(const protocol::ConvertSpec& spec) const {
  if (roots_.empty()) return outside("source", spec.source);
  Result<std::string> source = resolve_source(spec.source);
  if (!source.ok()) return source.refusal();
  Result<std::string> destination = resolve_destination(spec.destination);
  if (!destination.ok()) return destination.refusal();
  protocol::ConvertSpec resolved = spec;
  resolved.source = std::move(source).value();
  resolved.destination = std::move(destination).value();
  return resolved;
}

}  // namespace optserve::converter
