#include "keys/process_keys.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/comma_list.h"
#include "base/log.h"
#include "keys/key_files.h"

namespace optserve::keys {

namespace {

// base/config.h has such a function too, but the client library has no command line and does not include it.
std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

bool is_key(std::string_view text) { return text.starts_with(kSecretPrefix) || text.starts_with(kPublicPrefix); }

}  // namespace

Result<SecretKey> load_secret_key(const std::string& secret) {
  return is_key(secret) ? parse_secret_key(secret) : read_secret_key_file(secret);
}

Result<std::shared_ptr<ClientKeys>> ClientKeys::load(const std::string& secret,
                                                     const std::vector<std::string>& servers) {
  std::string file = is_key(secret) ? std::string() : secret;
  Result<SecretKey> own = load_secret_key(secret);
  if (!own.ok()) return refuse(own.refusal().code, "secret-key: " + own.refusal().message);
  std::vector<PublicKey> keys;
  for (const std::string& server : servers) {
    if (is_key(server)) {
      const Result<PublicKey> key = parse_public_key(server);
      if (!key.ok()) return refuse(key.refusal().code, "server-key: " + key.refusal().message);
      keys.push_back(key.value());
      continue;
    }
    const Result<std::vector<PublicKey>> more = read_public_key_file(server);
    if (!more.ok()) return refuse(more.refusal().code, "server-key: " + more.refusal().message);
    keys.insert(keys.end(), more.value().begin(), more.value().end());
  }
  if (keys.empty()) return refuse(ErrorCode::kBadRequest, "server-key: expected the public key of the scheduler");
  return std::make_shared<ClientKeys>(std::move(file), std::move(own).value(), std::move(keys));
}

Result<std::shared_ptr<ClientKeys>> ClientKeys::load_or_variables(std::string secret,
                                                                  std::vector<std::string> servers) {
  if (secret.empty()) secret = variable("OPTSERVE_SECRET_KEY");
  if (servers.empty()) servers = split_at_commas(variable("OPTSERVE_SERVER_KEY"));
  if (secret.empty() && servers.empty()) return std::shared_ptr<ClientKeys>();
  if (secret.empty()) {
    return refuse(ErrorCode::kBadRequest,
                  "secret-key: expected a file, since there is a server-key; `optserve keys new` makes one");
  }
  return load(secret, servers);
}

ClientKeys::ClientKeys(std::string file, SecretKey own, std::vector<PublicKey> servers)
    : file_(std::move(file)), seen_(file_stamp(file_)), own_(std::move(own)), servers_(std::move(servers)) {}

const SecretKey& ClientKeys::own() {
  if (file_.empty()) return own_;
  const std::optional<FileStamp> present = file_stamp(file_);
  if (present == seen_) return own_;
  seen_ = present;
  Result<SecretKey> read = read_secret_key_file(file_);
  if (read.ok()) {
    own_ = std::move(read).value();
    log_info("secret_key_read", {{"file", file_}, {"public_key", own_.public_key().short_text()}});
  } else {
    log_error("secret_key_not_read", {{"file", file_}, {"cause", read.refusal().message}});
  }
  return own_;
}

Result<std::shared_ptr<ServerKeys>> ServerKeys::load(const std::string& secret, const std::string& file,
                                                     const std::string& lines) {
  Result<SecretKey> own = load_secret_key(secret);
  if (!own.ok()) return refuse(own.refusal().code, "secret-key: " + own.refusal().message);
  if (file.empty() && lines.empty()) {
    return refuse(ErrorCode::kBadRequest, "allowed-keys: expected a file; `optserve keys allow` writes it");
  }
  auto keys = std::make_shared<ServerKeys>(std::move(own).value(), file, lines);
  if (Status status = keys->read(); !status.ok()) {
    return refuse(status.refusal().code, "allowed-keys: " + status.refusal().message);
  }
  return keys;
}

ServerKeys::ServerKeys(SecretKey own, std::string file, std::string lines)
    : own_(std::move(own)), file_(std::move(file)), lines_(std::move(lines)), seen_(file_stamp(file_)) {}

bool ServerKeys::refresh() {
  if (file_.empty()) return false;
  const std::optional<FileStamp> present = file_stamp(file_);
  if (present == seen_) return false;
  seen_ = present;
  const Status status = read();
  if (on_read_) on_read_(status);
  if (!status.ok()) {
    log_error("allowed_keys_not_read",
              {{"file", file_}, {"cause", status.refusal().message}, {"kept", allowed_->keys().size()}});
    return false;
  }
  log_info("allowed_keys_read", {{"file", file_}, {"keys", allowed_->keys().size()}});
  return true;
}

Status ServerKeys::read() {
  Result<AllowList> list = parse_allow_list(lines_);
  if (!list.ok()) return refuse(list.refusal().code, "allowed-key-lines: " + list.refusal().message);
  if (!file_.empty()) {
    const Result<std::string> text = read_key_file(file_, Privacy::kTrusted);
    if (!text.ok()) return text.refusal();
    const Result<AllowList> read = parse_allow_list(text.value());
    if (!read.ok()) return refuse(read.refusal().code, file_ + ": " + read.refusal().message);
    for (const AllowedKey& key : read.value().keys()) {
      if (Status status = list.value().add(key); !status.ok()) return status;
    }
  }
  allowed_before_ = std::exchange(allowed_, std::make_shared<const AllowList>(std::move(list).value()));
  return ok_status();
}

}  // namespace optserve::keys
