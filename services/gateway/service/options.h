// The command line of optserve-gateway.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "keys/key_options.h"

namespace optserve::gateway {

struct GatewayOptions {
  CommonOptions common;
  std::string sandbox = "try";  // require, try or off
  std::vector<std::string> schedulers = {"tcp://127.0.0.1:5555"};
  std::string http = "127.0.0.1:8000";
  std::vector<std::string> models;  // NAME=FOLDER of a sharded checkpoint
  std::string chat_template;        // "plain" or a file; empty: there are no chats
  std::string files;                // folder of files and batches; empty: there are none
  int64_t files_bytes_max = 20'000'000'000;
  int64_t files_days = 30;                // for which files and ended batches are kept; 0: for ever
  std::string tls_certificate, tls_key;   // files in PEM; empty: no TLS
  std::vector<std::string> cors_origins;  // "https://example.org", or "*"
  std::string keys;                       // file of API keys; empty: none
  std::string key_lines;                  // further keys, in the form of the file
  bool insecure = false;                  // serve other machines, and speak to them, without keys
  keys::ClientKeyOptions scheduler_keys;  // of the connections to the schedulers
  bool metrics_need_key = false;          // /metrics is for operators
  int64_t connections_max = 4'000;
  int64_t drain_ms = 30'000;
};

void add_options(ConfigParser& parser, GatewayOptions& options);

struct ListenAddress {
  std::string address;
  int port = 0;
};
// "127.0.0.1:8000" or "[::1]:8000".
Result<ListenAddress> parse_listen_address(const std::string& text);
// Whether only this machine reaches a numeric address.
bool is_loopback(const std::string& address);

}  // namespace optserve::gateway
