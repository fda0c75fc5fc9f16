// Changes a file of allowed keys line by line, keeping comments and the order of lines.
#pragma once

#include <string>
#include <vector>

#include "keys/allow_list.h"

namespace optserve::keys {

// The list in a file; empty if there is no such file.
Result<AllowList> read_allow_file(const std::string& path);
// Adds a line, or replaces that of the same key. Creates the file (mode 0600). Refuses to change a faulty file.
Status allow_in_file(const std::string& path, const AllowedKey& key);
// Removes the lines of this key, given by its text, or of all keys of this name. Returns what was removed, or refuses
// (kNotFound) if there is nothing to remove.
Result<std::vector<AllowedKey>> revoke_in_file(const std::string& path, const std::string& key_or_name);

}  // namespace optserve::keys
