// Where the keys come from: a file that is read again when it changes, and the environment.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file_stamp.h"
#include "gateway/access/api_key.h"

namespace optserve::gateway {

class KeyStore {
 public:
  // `file` may be empty; `lines` has the form of the file. Throws ConfigurationError if there is a fault in one of
  // them, or no key at all.
  KeyStore(std::string file, const std::string& lines);

  bool has_keys() const { return !file_.empty() || !fixed_.empty(); }
  const std::vector<ApiKey>& keys() const { return keys_; }
  // Looks whether the file has changed. True: keys() are other ones. A file with a fault is logged, once, and changes
  // nothing. Cheap if nothing has changed.
  bool refresh();

 private:
  Status read();

  const std::string file_;
  std::vector<ApiKey> fixed_, keys_;
  std::optional<FileStamp> seen_;
};

}  // namespace optserve::gateway
