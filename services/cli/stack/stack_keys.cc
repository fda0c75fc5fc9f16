#include "cli/stack/stack_keys.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "keys/allow_file.h"
#include "keys/key_files.h"

namespace optserve::cli {
namespace {

struct Identity {
  std::string name;
  std::vector<std::string> rights;  // none: the scheduler itself
};

std::vector<Identity> identities_of(const StackOptions& options) {
  std::vector<Identity> all{{"scheduler", {}},
                            {"tokenizer", {"tokenizer=" + options.name}},
                            {"worker", {"worker=" + options.name}},
                            {"gateway", {"client=*", "operator"}},
                            {"client", {"client=*", "operator"}}};
  if (!options.converter_root.empty()) {
    const bool has_space = options.converter_root.find_first_of(" \t\r\n") != std::string::npos;
    all.push_back({"converter", {"converter=" + (has_space ? "/" : options.converter_root)}});
  }
  return all;
}

bool exists(const std::string& path) {
  struct stat about {};
  return stat(path.c_str(), &about) == 0;
}

}  // namespace

Result<std::string> write_key_pair(const std::string& folder, const std::string& name) {
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return refuse(ErrorCode::kUnavailable, errno_error("create the folder " + folder).what());
  }
  const std::string base = folder + "/" + name;
  const keys::SecretKey key = keys::new_secret_key();
  const std::string public_text = key.public_key().text();
  if (exists(base + ".public")) return refuse(ErrorCode::kBadRequest, base + ".public: exists, and is not overwritten");
  std::string text = "# Secret key of " + name + ". Whoever has it is " + name + ": nobody else may read this file.\n" +
                     key.text() + "\n";
  const Status written = keys::write_new_file(base + ".secret", text, 0600);
  keys::wipe(text);
  if (!written.ok()) return written.refusal();
  if (Status status = keys::write_new_file(base + ".public", public_text + "\n", 0644); !status.ok()) {
    return status.refusal();
  }
  return public_text;
}

Status StackKeys::prepare(const StackOptions& options) const {
  for (const Identity& identity : identities_of(options)) {
    if (!exists(secret(identity.name))) {
      if (const auto made = write_key_pair(folder_, identity.name); !made.ok()) return made.refusal();
    }
    const Result<keys::SecretKey> own = keys::read_secret_key_file(secret(identity.name));
    if (!own.ok()) return own.refusal();
    if (identity.rights.empty()) continue;
    keys::AllowedKey key;
    key.key = own.value().public_key();
    key.name = identity.name;
    if (Status status = keys::set_rights(key, identity.rights); !status.ok()) return status;
    const Result<keys::AllowList> list = keys::read_allow_file(allowed());
    if (!list.ok()) return list.refusal();
    const keys::AllowedKey* known = list.value().find(key.key);
    if (known != nullptr && *known == key) continue;
    if (Status status = keys::allow_in_file(allowed(), key); !status.ok()) return status;
  }
  return ok_status();
}

}  // namespace optserve::cli
