#include "gateway/service/options.h"

#include <arpa/inet.h>

#include <charconv>

#include "confinement/program_cage.h"

namespace optserve::gateway {

void add_options(ConfigParser& parser, GatewayOptions& options) {
  parser.begin_group("Addresses");
  parser
      .add("scheduler", options.schedulers,
           "Client endpoint of a scheduler; repeatable: jobs are shared among all of them")
      .separated_by_commas();
  parser.add("http", options.http, "ADDRESS:PORT on which the API is served");
  parser.add("tls-certificate", options.tls_certificate,
             "File in PEM with a certificate and its chain: the API is served over TLS. Read again when it changes");
  parser.add("tls-key", options.tls_key, "File in PEM with the key of the certificate");
  parser
      .add("cors-origin", options.cors_origins,
           "Origin of web pages that may use this API, or *; repeatable. None: browsers refuse it to other pages")
      .separated_by_commas();
  parser.begin_group("Keys");
  parser.add("keys", options.keys,
             "File of API keys, which others must not be able to read; it is read again when it changes. "
             "`optserve-gateway new-key` makes a key");
  parser
      .add("key-lines", options.key_lines, "Further lines of such a file, for the variable OPTSERVE_GATEWAY_KEY_LINES")
      .unlogged();
  parser.add(
      "insecure", options.insecure,
      "Serve other machines, and speak to schedulers there, without keys: whoever reaches a port may do anything");
  keys::add_connection_options(parser, options.scheduler_keys);
  parser.add("metrics-need-key", options.metrics_need_key, "/metrics needs a key that may operate");
  parser.begin_group("Models");
  parser
      .add("model", options.models,
           "NAME=FOLDER of a sharded checkpoint, whose vocabulary is needed for echo, log-probabilities and "
           "/tokenize; repeatable. Models without a folder are served too")
      .separated_by_commas();
  parser.add("chat-template", options.chat_template,
             "How messages of chats become a prompt: plain, or a file (docs/http.md). Without it chats are refused");
  parser.begin_group("Files and batches");
  parser.add("files", options.files,
             "Folder for the files of clients and for batches, which all gateways of the schedulers share; without it "
             "there are no /v1/files and /v1/batches");
  parser.add("files-bytes-max", options.files_bytes_max, "Most bytes of all files in that folder")
      .range(1, 1'000'000'000'000'000);
  parser
      .add("files-days", options.files_days,
           "Days for which files that say no other time, and batches that have ended, are kept; 0: for ever")
      .range(0, 36'500);
  parser.begin_group("Limits");
  parser.add("connections-max", options.connections_max, "Most open connections; further ones wait")
      .range(1, 1'000'000);
  parser.add("drain-ms", options.drain_ms, "How long answers may go on after SIGTERM").range(0, 86'400'000);
  add_common_options(parser, options.common);
  confinement::add_sandbox_option(parser, options.sandbox);
  parser.add_example("optserve-gateway --scheduler tcp://scheduler:5555 --http 0.0.0.0:8000 --model opt=/models/opt",
                     "serve the API of one scheduler to the network");
}

Result<ListenAddress> parse_listen_address(const std::string& text) {
  const auto wrong = [&] {
    return refuse(ErrorCode::kBadRequest, "http is '" + text + "', expected ADDRESS:PORT, such as 127.0.0.1:8000");
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return wrong();
  ListenAddress result;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + colon + 1, end, result.port);
  if (error != std::errc() || rest != end || result.port < 0 || result.port > 65'535) return wrong();
  result.address = text.substr(0, colon);
  if (result.address.starts_with('[') && result.address.ends_with(']')) {
    result.address = result.address.substr(1, result.address.size() - 2);
  }
  if (result.address.empty()) return wrong();
  return result;
}

bool is_loopback(const std::string& address) {
  in_addr four{};
  if (inet_pton(AF_INET, address.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24) == 127;
  in6_addr six{};
  return inet_pton(AF_INET6, address.c_str(), &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six) != 0;
}

}  // namespace optserve::gateway
