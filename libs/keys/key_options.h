// The options about keys, which have the same names in every program.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "keys/process_keys.h"

namespace optserve::keys {

struct ClientKeyOptions {
  std::string secret_key;                // the name of a file; from a variable, also the key itself
  std::vector<std::string> server_keys;  // public keys of schedulers, or names of files with them
  bool insecure = false;                 // allows connections to other machines without keys
};
struct ServerKeyOptions {
  std::string secret_key;
  std::string allowed_keys;       // name of a file
  std::string allowed_key_lines;  // further lines of such a file
  bool insecure = false;
};

void add_options(ConfigParser& parser, ClientKeyOptions& options);
// The same without --insecure, for a program that already has an option of this name.
void add_connection_options(ConfigParser& parser, ClientKeyOptions& options);
void add_options(ConfigParser& parser, ServerKeyOptions& options);

// nullptr if there are no keys. What the options leave empty is taken from the variables OPTSERVE_SECRET_KEY and
// OPTSERVE_SERVER_KEY, which apply to all programs. Throws ConfigurationError.
std::shared_ptr<ClientKeys> load(const ClientKeyOptions& options);
std::shared_ptr<ServerKeys> load(const ServerKeyOptions& options);

// The secret key that the ranks of a group have in common, from a file or, from a variable, the key itself; nullptr if
// `group_key` is empty. Throws ConfigurationError.
std::shared_ptr<const SecretKey> load_group_key(const std::string& group_key);

// Throws ConfigurationError if there is a secret key on the command line of this process, which everybody on the
// machine can read.
void check_command_line();

}  // namespace optserve::keys
