// Who may connect to a scheduler, and what each may do. This is a text with one key per line:
//
//   # a comment: lines that begin with '#' and empty lines count for nothing
//   opt-public-8f…  name=web       client=shop,forum
//   opt-public-21…  name=gateway   client=* operator
//   opt-public-77…  name=worker-0  worker=opt-125m,opt-30b
//   opt-public-c0…  name=text      tokenizer=*
//   opt-public-5a…  name=convert   converter=/models
//
// client=TENANTS allows jobs of these tenants; * means all of them, and the word `client` alone means the tenant
// without a name. operator allows what operators do, with the jobs of all tenants, and conversions. worker=MODELS and
// tokenizer=MODELS allow services of these models, or of all (*). converter=FOLDER allows conversions whose paths lie
// below the folder; it may be given several times. A name may have several keys, such as the old and the new one while
// a key is exchanged.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "keys/key_pair.h"

namespace optserve::keys {

inline constexpr size_t kAllowedKeysMax = 10'000;
inline constexpr size_t kNamesPerKeyMax = 1'000;  // tenants or models of one right
inline constexpr size_t kFoldersPerKeyMax = 100;

// A set of names, or all names.
class NameSet {
 public:
  static NameSet of_all();
  explicit NameSet(std::vector<std::string> names = {});

  bool contains(std::string_view name) const;
  bool is_all() const { return is_all_; }
  bool empty() const { return !is_all_ && names_.empty(); }
  const std::vector<std::string>& names() const { return names_; }  // sorted; empty if it is all names
  bool operator==(const NameSet&) const = default;

 private:
  bool is_all_ = false;
  std::vector<std::string> names_;
};

// The two ports of a scheduler.
enum class Door { kClients, kServices };

struct AllowedKey {
  PublicKey key{};
  std::string name{};  // for logs and people, [A-Za-z0-9._-]; a service belongs to this name
  NameSet tenants{};
  bool is_operator = false;
  NameSet worker_models{}, tokenizer_models{};
  std::vector<std::string> converter_folders{};  // absolute, normal, without a slash at the end unless it is "/"

  bool may_enter(Door door) const;
  bool operator==(const AllowedKey&) const = default;
};

class AllowList {
 public:
  const AllowedKey* find(const PublicKey& key) const;
  const std::vector<AllowedKey>& keys() const { return keys_; }
  // Refuses a key that is already in the list.
  Status add(AllowedKey key);

 private:
  std::vector<AllowedKey> keys_;
  std::unordered_map<std::string, size_t> places_;  // by the bytes of the key
};

// Refuses the whole text if one line is wrong, naming the line. The refusal never repeats what may be a secret.
Result<AllowList> parse_allow_list(std::string_view text);
// One line, without a comment.
Result<AllowedKey> parse_allowed_key(std::string_view line);
// The line of a key, without a line end. parse_allowed_key() turns it back into the same key.
std::string allow_line(const AllowedKey& key);
// Sets the rights from the words after the key, such as "client=a operator".
Status set_rights(AllowedKey& key, const std::vector<std::string>& words);

// Whether a path without ".." lies in `folder`, which is absolute and normal, or is the folder itself.
bool lies_in(std::string_view path, std::string_view folder);

}  // namespace optserve::keys
