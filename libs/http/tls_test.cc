#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "http/http_test_client.h"
#include "http/server.h"

namespace optserve::http {
namespace tls_test {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A key and a self-signed certificate, in two files.
class Certificate {
 public:
  explicit Certificate(const std::string& name)
      : path_(::testing::TempDir() + "/tls_" + std::to_string(getpid()) + "_" + name) {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_sign(certificate, key, EVP_sha256());
    FILE* file = std::fopen(certificate_file().c_str(), "w");
    PEM_write_X509(file, certificate);
    std::fclose(file);
    file = std::fopen(key_file().c_str(), "w");
    PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  ~Certificate() {
    std::filesystem::remove(certificate_file());
    std::filesystem::remove(key_file());
  }
  std::string certificate_file() const { return path_ + ".pem"; }
  std::string key_file() const { return path_ + ".key"; }

 private:
  std::string path_;
};

// A client that trusts every certificate.
class TlsClient {
 public:
  explicit TlsClient(int port) : socket_(port), context_(SSL_CTX_new(TLS_client_method())), ssl_(SSL_new(context_)) {
    SSL_set_fd(ssl_, socket_.fd());
    is_connected_ = SSL_connect(ssl_) == 1;
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool is_connected() const { return is_connected_; }
  // What distinguishes the server's certificate from others.
  std::string certificate() const {
    X509* certificate = SSL_get1_peer_certificate(ssl_);
    const ASN1_BIT_STRING* key = X509_get0_pubkey_bitstr(certificate);
    std::string bytes(reinterpret_cast<const char*>(key->data), static_cast<size_t>(key->length));
    X509_free(certificate);
    return bytes;
  }
  void write(std::string_view text) const { SSL_write(ssl_, text.data(), static_cast<int>(text.size())); }
  // Reads until the server ends; ends with "(cut)" if the server did not announce the end.
  std::string read_all() const {
    std::string all;
    char buffer[4096];
    int got = 0;
    while ((got = SSL_read(ssl_, buffer, sizeof buffer)) > 0) all.append(buffer, static_cast<size_t>(got));
    return SSL_get_error(ssl_, got) == SSL_ERROR_ZERO_RETURN ? all : all + "(cut)";
  }

 private:
  TestClient socket_;
  SSL_CTX* context_;
  SSL* ssl_;
  bool is_connected_ = false;
};

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() {
    server.route("POST", "/echo", [](const auto& exchange) { exchange->answer({.body = exchange->request().body}); },
                 {.body_bytes_max = 1 << 20});
    server.route("GET", "/words", [](const auto& exchange) {
      exchange->begin_stream(200, sse_headers());
      for (const char* word : {"one", "two"}) exchange->write(sse_frame(word));
      exchange->end();
    });
    server.route("GET", "/cut", [](const auto& exchange) {
      exchange->begin_stream(200, sse_headers());
      exchange->write(sse_frame("last words"));
      exchange->abort();
    });
    server.start();
  }

  const SystemClock clock;
  const Certificate certificate{"a"};
  Server server{{.certificate_file = certificate.certificate_file(),
                 .key_file = certificate.key_file(),
                 .limits = {.request_timeout = milliseconds(300)}},
                clock,
                {}};
};

TEST_F(TlsTest, AnswersAndStreams) {
  const std::string body(200'000, 'x');
  TlsClient client(server.port());
  ASSERT_TRUE(client.is_connected());
  client.write("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + body);
  client.write("GET /words HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string all = client.read_all();
  EXPECT_THAT(all, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(all, HasSubstr("\r\n\r\n" + body + "HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(all, EndsWith("data: two\n\n\r\n0\r\n\r\n"));
}

TEST_F(TlsTest, CertificatesAreReadAgainWhenTheyChange) {
  const auto seen = [this] { return TlsClient(server.port()).certificate(); };
  const auto wait_until = [&](const std::function<bool()>& is_so) {
    for (int i = 0; i < 200 && !is_so(); ++i) std::this_thread::sleep_for(milliseconds(20));
    return is_so();
  };
  const std::string before = seen();
  EXPECT_EQ(seen(), before);
  {
    const Certificate fresh("b");
    // Between the two steps certificate and key do not match, so the old ones stay in use.
    std::filesystem::rename(fresh.certificate_file(), certificate.certificate_file());
    std::this_thread::sleep_for(milliseconds(1'100));
    EXPECT_EQ(seen(), before);
    std::filesystem::rename(fresh.key_file(), certificate.key_file());
  }
  EXPECT_TRUE(wait_until([&] { return seen() != before; }));
  const std::string after = seen();
  std::filesystem::remove(certificate.certificate_file());
  std::this_thread::sleep_for(milliseconds(1'100));
  EXPECT_EQ(seen(), after) << "a file that is missing changes nothing";
}

TEST_F(TlsTest, ACutStreamIsVisiblyIncomplete) {
  TlsClient client(server.port());
  client.write("GET /cut HTTP/1.0\r\n\r\n");
  EXPECT_THAT(client.read_all(), EndsWith("data: last words\n\n(cut)"));
}

TEST_F(TlsTest, APeerWithoutTlsOrSilentIsLost) {
  TestClient plain(server.port()), silent(server.port());
  plain.write("GET /words HTTP/1.0\r\n\r\n");
  EXPECT_THAT(plain.read_all(), Not(HasSubstr("HTTP/1.1")));
  EXPECT_EQ(silent.read_all(), "");
  EXPECT_TRUE(TlsClient(server.port()).is_connected());
}

TEST(Tls, FilesThatCannotBeUsedAreNamed) {
  const SystemClock clock;
  const Certificate one("one"), other("other");
  const auto error_of = [&](const std::string& certificate, const std::string& key) -> std::string {
    try {
      Server({.certificate_file = certificate, .key_file = key}, clock, {});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(error_of(one.certificate_file(), one.key_file()), "");
  EXPECT_THAT(error_of("/nowhere.pem", one.key_file()), HasSubstr("/nowhere.pem"));
  EXPECT_THAT(error_of(one.certificate_file(), "/nowhere.key"), HasSubstr("/nowhere.key"));
  EXPECT_THAT(error_of(one.certificate_file(), other.key_file()), HasSubstr(other.key_file()));
}

}  // namespace tls_test
}  // namespace optserve::http
