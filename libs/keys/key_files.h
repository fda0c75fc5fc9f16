// Files of keys. A secret key's file holds one line with the key, and lines that begin with '#'.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "keys/key_pair.h"

namespace optserve::keys {

inline constexpr size_t kKeyFileBytesMax = 1 << 20;

enum class Privacy {
  kSecret,   // only the owner may read or write it; the group may read what belongs to root, as Kubernetes mounts it
  kTrusted,  // everybody may read it, only the owner may write it
};

// The text of a regular file with these permissions. A refusal names the file and, for wrong permissions, the command
// that corrects them.
Result<std::string> read_key_file(const std::string& path, Privacy privacy);

// The key in the text of such a file.
Result<SecretKey> parse_secret_key_file(std::string_view text);
Result<std::vector<PublicKey>> parse_public_key_file(std::string_view text);

Result<SecretKey> read_secret_key_file(const std::string& path);
Result<std::vector<PublicKey>> read_public_key_file(const std::string& path);

// Creates a file with this mode, whatever the umask is, and syncs it. Refuses if the file exists.
Status write_new_file(const std::string& path, std::string_view text, unsigned mode);
// Replaces a file as a whole and keeps its mode; a new file gets mode 0600.
Status replace_file(const std::string& path, std::string_view text);

}  // namespace optserve::keys
