#include "keys/key_options.h"

#include <fstream>
#include <sstream>

#include "base/program.h"

namespace optserve::keys {
namespace {

constexpr const char* kSecretKeyHelp =
    "File with the secret key of this process, which only its owner may read; `optserve keys new` makes one. It is "
    "read "
    "again when it changes";

template <class Keys>
std::shared_ptr<Keys> value_or_throw(Result<std::shared_ptr<Keys>> keys) {
  if (!keys.ok()) throw ConfigurationError(keys.refusal().message);
  return std::move(keys).value();
}

}  // namespace

void add_connection_options(ConfigParser& parser, ClientKeyOptions& options) {
  parser.add("secret-key", options.secret_key, kSecretKeyHelp).unlogged();
  parser
      .add("server-key", options.server_keys,
           "Public key of the scheduler, or a file with public keys; repeatable: each connection finds the right one")
      .separated_by_commas();
}

void add_options(ConfigParser& parser, ClientKeyOptions& options) {
  parser.begin_group("Keys");
  add_connection_options(parser, options);
  parser.add("insecure", options.insecure, "Speak to other machines without keys: whoever is between may read and lie");
}

void add_options(ConfigParser& parser, ServerKeyOptions& options) {
  parser.begin_group("Keys");
  parser.add("secret-key", options.secret_key, kSecretKeyHelp).unlogged();
  parser.add("allowed-keys", options.allowed_keys,
             "File of the public keys that may connect, and what each may do (docs/security.md); `optserve keys allow` "
             "writes it. It is read again when it changes");
  parser.add("allowed-key-lines", options.allowed_key_lines,
             "Further lines of such a file, for a variable of the environment");
  parser.add("insecure", options.insecure,
             "Listen to other machines without keys: whoever reaches a port may do anything");
}

void check_command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  std::string words = text.str();
  const bool has_secret = words.find(kSecretPrefix) != std::string::npos;
  wipe(words);
  if (has_secret) {
    throw ConfigurationError(
        "a secret key stands on the command line, where everybody on this machine can read it; make a new one, and "
        "give "
        "the name of its file");
  }
}

std::shared_ptr<ClientKeys> load(const ClientKeyOptions& options) {
  check_command_line();
  return value_or_throw(ClientKeys::load_or_variables(options.secret_key, options.server_keys));
}

std::shared_ptr<const SecretKey> load_group_key(const std::string& group_key) {
  check_command_line();
  if (group_key.empty()) return nullptr;
  Result<SecretKey> key = load_secret_key(group_key);
  if (!key.ok()) throw ConfigurationError("group-key: " + key.refusal().message);
  return std::make_shared<const SecretKey>(std::move(key).value());
}

std::shared_ptr<ServerKeys> load(const ServerKeyOptions& options) {
  check_command_line();
  if (options.secret_key.empty() && options.allowed_keys.empty() && options.allowed_key_lines.empty()) return nullptr;
  if (options.secret_key.empty()) {
    throw ConfigurationError(
        "secret-key: expected a file, since there are allowed keys; `optserve keys new` makes one");
  }
  return value_or_throw(ServerKeys::load(options.secret_key, options.allowed_keys, options.allowed_key_lines));
}

}  // namespace optserve::keys
