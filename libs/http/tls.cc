#include "http/tls.h"

#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <array>

#include "base/error.h"
#include "base/log.h"
#include "base/program.h"

namespace optserve::http {
namespace {

constexpr seconds kLookInterval{1};

// An error with OpenSSL's own text of its last failure.
ConfigurationError tls_error(const std::string& what) {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_peek_last_error(), text.data(), text.size());
  ERR_clear_error();
  return ConfigurationError(what + ": " + text.data());
}

}  // namespace

void Tls::Deleter::operator()(ssl_ctx_st* context) const { SSL_CTX_free(context); }

Tls::Tls(std::string certificate_file, std::string key_file)
    : certificate_file_(std::move(certificate_file)),
      key_file_(std::move(key_file)),
      seen_(stamps()),
      context_(read()) {}

Tls::~Tls() = default;

Tls::Context Tls::read() const {
  Context result(SSL_CTX_new(TLS_server_method()));
  if (!result) throw tls_error("TLS");
  SSL_CTX* context = result.get();
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);  // idle connections take little memory
  if (SSL_CTX_use_certificate_chain_file(context, certificate_file_.c_str()) != 1) {
    throw tls_error("certificate " + certificate_file_);
  }
  if (SSL_CTX_use_PrivateKey_file(context, key_file_.c_str(), SSL_FILETYPE_PEM) != 1) {
    throw tls_error("key " + key_file_);
  }
  if (SSL_CTX_check_private_key(context) != 1) {
    throw tls_error("key " + key_file_ + " is not that of certificate " + certificate_file_);
  }
  return result;
}

void Tls::refresh(Instant now) {
  if (now - looked_ < kLookInterval) return;
  looked_ = now;
  const Stamps present = stamps();
  if (present == seen_) return;
  seen_ = present;
  try {
    context_ = read();
    log_info("certificate_read", {{"file", certificate_file_}});
  } catch (const Error& error) {
    log_error("certificate_not_read", {{"cause", error.what()}});
  }
}

bufferevent* Tls::accept(event_base* base, evutil_socket_t fd) const {
  SSL* ssl = SSL_new(context_.get());
  if (ssl == nullptr) return nullptr;
  bufferevent* buffer = bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
  if (buffer == nullptr) {
    SSL_free(ssl);
    return nullptr;
  }
  bufferevent_openssl_set_allow_dirty_shutdown(buffer, 1);  // a peer may also end by just closing its socket
  return buffer;
}

void Tls::write_now(bufferevent* buffer, std::string_view bytes) {
  SSL* ssl = bufferevent_openssl_get_ssl(buffer);
  size_t written = 0;
  if (!bytes.empty() && SSL_is_init_finished(ssl)) SSL_write_ex(ssl, bytes.data(), bytes.size(), &written);
  ERR_clear_error();
}

void Tls::announce_end(bufferevent* buffer) {
  SSL* ssl = bufferevent_openssl_get_ssl(buffer);
  if (SSL_is_init_finished(ssl)) SSL_shutdown(ssl);
  ERR_clear_error();
}

}  // namespace optserve::http
