// The options about keys, which have the same names in every program.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "keys/process_keys.h"

namespace optserve::keys {

struct ClientKeyOptions {
  std::string secret_key;                // name of a file; from a variable also the key itself
  std::vector<std::string> server_keys;  // public keys of schedulers, or names of files with them
  bool insecure = false;                 // other machines may be spoken to without keys
};
struct ServerKeyOptions {
  std::string secret_key;
  std::string allowed_keys;       // name of a file
  std::string allowed_key_lines;  // further lines of such a file
  bool insecure = false;
};

void add_options(ConfigParser& parser, ClientKeyOptions& options);
// The same without --insecure, for a program that has an option of this name already.
void add_connection_options(ConfigParser& parser, ClientKeyOptions& options);
void add_options(ConfigParser& parser, ServerKeyOptions& options);

// nullptr: there are no keys. What the options leave empty comes from the variables OPTSERVE_SECRET_KEY and
// OPTSERVE_SERVER_KEY, which hold for all programs. Throws ConfigurationError.
std::shared_ptr<ClientKeys> load(const ClientKeyOptions& options);
std::shared_ptr<ServerKeys> load(const ServerKeyOptions& options);

// Throws ConfigurationError if the command line of this process, which everybody on the machine can read, holds a
// secret key.
void check_command_line();

}  // namespace optserve::keys
