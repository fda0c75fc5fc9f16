// The keys of a running process: its own, and those of its peers. Files are read again when they change, so that keys
// are exchanged without a restart.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file_stamp.h"
#include "keys/allow_list.h"
#include "keys/key_pair.h"

namespace optserve::keys {

// `secret` is the name of a file or the key itself.
Result<SecretKey> load_secret_key(const std::string& secret);

// The keys of a process that connects to schedulers.
class ClientKeys {
 public:
  // `secret` is the name of a file or the key itself, and `servers` are public keys or names of files with public keys.
  static Result<std::shared_ptr<ClientKeys>> load(const std::string& secret, const std::vector<std::string>& servers);

  // The same; what is empty is taken from the variables OPTSERVE_SECRET_KEY and OPTSERVE_SERVER_KEY, which apply to all
  // programs. nullptr if there are no keys.
  static Result<std::shared_ptr<ClientKeys>> load_or_variables(std::string secret, std::vector<std::string> servers);

  ClientKeys(std::string file, SecretKey own, std::vector<PublicKey> servers);

  // The own key for a new connection. Reads the file again if it has changed; a faulty file is logged and changes
  // nothing.
  const SecretKey& own();
  // The scheduler has one of these keys.
  const std::vector<PublicKey>& servers() const { return servers_; }

 private:
  std::string file_;  // empty if the key was given directly
  std::optional<FileStamp> seen_;
  SecretKey own_;
  std::vector<PublicKey> servers_;
};

// The keys of a process to which others connect.
class ServerKeys {
 public:
  // `secret` is as above. `file` names an allow list and `lines` is the text of one; either may be empty.
  static Result<std::shared_ptr<ServerKeys>> load(const std::string& secret, const std::string& file,
                                                  const std::string& lines);

  ServerKeys(SecretKey own, std::string file, std::string lines);

  const SecretKey& own() const { return own_; }
  const AllowList& allowed() const { return *allowed_; }
  // The list before the last refresh() that returned true.
  const AllowList& allowed_before() const { return *allowed_before_; }
  // Checks whether the file has changed. True if allowed() is now a different list, at a different address. A faulty or
  // missing file is logged once and changes nothing. Cheap if nothing has changed.
  bool refresh();
  // Called by refresh() after it has read the file, with the fault if there is one.
  void set_on_read(std::function<void(const Status& status)> on_read) { on_read_ = std::move(on_read); }

 private:
  Status read();

  SecretKey own_;
  std::string file_, lines_;
  std::function<void(const Status&)> on_read_;
  std::optional<FileStamp> seen_;
  std::shared_ptr<const AllowList> allowed_ = std::make_shared<const AllowList>(), allowed_before_ = allowed_;
};

}  // namespace optserve::keys
