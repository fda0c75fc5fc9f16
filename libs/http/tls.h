// TLS for a server's connections. Internal to the component; the only includer of OpenSSL in it.
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
  // Files in PEM: the certificate with those of its chain, and its key. TLS 1.2 and newer. Throws Error naming the
  // file.
  Tls(std::string certificate_file, std::string key_file);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  // Reads the files again if they have changed, for the connections that come from now on. Files with a fault are
  // logged, once, and change nothing. Cheap: looks at most once a second.
  void refresh(Instant now);

  // The buffer of a connection that begins with the peer's handshake; it owns the descriptor. nullptr: no memory.
  bufferevent* accept(event_base* base, evutil_socket_t fd) const;

  // Of such a buffer: sends what the system takes at once, or the sign that nothing follows.
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
