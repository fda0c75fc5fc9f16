// The keys of a local stack, in the folder `keys` of its own folder: a pair for each kind of process and for the
// commands that use the stack, and the list of them. `optserve up` makes what is missing.
#pragma once

#include <string>

#include "base/error.h"
#include "cli/stack/stack_plan.h"

namespace optserve::cli {

class StackKeys {
 public:
  explicit StackKeys(const std::string& stack_folder) : folder_(stack_folder + "/keys") {}

  const std::string& folder() const { return folder_; }
  std::string secret(const std::string& name) const { return folder_ + "/" + name + ".secret"; }
  std::string public_file(const std::string& name) const { return folder_ + "/" + name + ".public"; }
  std::string allowed() const { return folder_ + "/allowed_keys"; }

  // Makes the keys that these options need, and allows them. Keys that are there, and lines of others in the list,
  // stay.
  Status prepare(const StackOptions& options) const;

 private:
  std::string folder_;
};

// Writes NAME.secret and NAME.public into a folder, which is created (mode 0700) if it does not exist. Returns the
// public key. Refuses to overwrite either.
Result<std::string> write_key_pair(const std::string& folder, const std::string& name);

}  // namespace optserve::cli
