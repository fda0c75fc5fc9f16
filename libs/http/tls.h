// TLS for a server's connections. Internal to the component; the only includer of OpenSSL in it.
#pragma once

#include <event2/bufferevent.h>

#include <memory>
#include <string>
#include <string_view>

struct ssl_ctx_st;

namespace optserve::http {

class Tls {
 public:
  // Files in PEM: the certificate with those of its chain, and its key. TLS 1.2 and newer. Throws Error naming the
  // file.
  Tls(const std::string& certificate_file, const std::string& key_file);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  // The buffer of a connection that begins with the peer's handshake; it owns the descriptor. nullptr: no memory.
  bufferevent* accept(event_base* base, evutil_socket_t fd) const;

  // Of such a buffer: sends what the system takes at once, or the sign that nothing follows.
  static void write_now(bufferevent* buffer, std::string_view bytes);
  static void announce_end(bufferevent* buffer);

 private:
  struct Deleter {
    void operator()(ssl_ctx_st* context) const;
  };
  std::unique_ptr<ssl_ctx_st, Deleter> context_;
};

}  // namespace optserve::http
