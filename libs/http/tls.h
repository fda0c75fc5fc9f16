// TLS for a server's connections. Internal to the component; no other file of it includes OpenSSL.
#pragma once

#include <event2/bufferevent.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/file_stamp.h"

struct ssl_ctx_st;

namespace optserve::http {

class Tls {
 public:
  // PEM files: the certificate with its chain, and its key. TLS 1.2 and newer. Throws Error naming the file.
  Tls(std::string certificate_file, std::string key_file);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  // Reads the files again if they have changed, for future connections. Faulty files are logged once and change
  // nothing. Cheap, since it checks at most once a second.
  void refresh(Instant now);

  // The buffer of a new connection, which begins with the peer's handshake and owns the descriptor. nullptr if there is
  // no memory.
  bufferevent* accept(event_base* base, evutil_socket_t fd) const;

  // On such a buffer, sends what the system takes at once, or the message that nothing follows.
  static void write_now(bufferevent* buffer, std::string_view bytes);
  static void announce_end(bufferevent* buffer);

 private:
  struct Deleter {
    void operator()(ssl_ctx_st* context) const;
  };
  using Context = std::unique_ptr<ssl_ctx_st, Deleter>;
  using Stamps = std::pair<std::optional<FileStamp>, std::optional<FileStamp>>;
  Context read() const;
  Stamps stamps() const { return {file_stamp(certificate_file_), file_stamp(key_file_)}; }

  const std::string certificate_file_, key_file_;
  Stamps seen_;
  Context context_;
  Instant looked_{};
};

}  // namespace optserve::http
