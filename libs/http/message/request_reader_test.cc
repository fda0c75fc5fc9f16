#include "http/message/request_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace optserve::http {
namespace request_reader_test {

using State = RequestReader::State;
using ::testing::ElementsAre;
using ::testing::Pair;

constexpr HeadLimits kLimits{.target_bytes_max = 100, .head_bytes_max = 1'000, .fields_max = 10};

// A reader that was given `text` in pieces of `piece` bytes, and what it has left of it.
struct Read {
  explicit Read(std::string_view text, size_t piece = 1'000'000, size_t body_bytes_max = 64) : rest(text) {
    while (!rest.empty() && reader.state() != State::kDone && reader.state() != State::kFailed) {
      rest.remove_prefix(reader.feed(rest.substr(0, piece)));
      if (reader.state() == State::kHeadDone) reader.begin_body(body_bytes_max);
    }
  }

  RequestReader reader{kLimits};
  std::string_view rest;
};

int status_of(std::string_view text) {
  const Read read(text);
  return read.reader.state() == State::kFailed ? read.reader.status() : 0;
}

TEST(RequestReader, ReadsARequestInPiecesOfAnySize) {
  constexpr std::string_view kText =
      "POST /v1/jobs/a%20b%2Fc?limit=5&q=x+y&empty HTTP/1.1\r\nHost: here\r\nX-Two:  spaced \t\r\nContent-Length: "
      "5\r\n\r\nhello";
  for (size_t piece = 1; piece <= kText.size(); ++piece) {
    Read read(kText, piece);
    ASSERT_EQ(read.reader.state(), State::kDone) << piece;
    const Request& request = read.reader.request();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.target.path, "/v1/jobs/a%20b%2Fc");
    EXPECT_THAT(request.target.segments, ElementsAre("v1", "jobs", "a b/c"));
    EXPECT_THAT(request.target.query, ElementsAre(Pair("limit", "5"), Pair("q", "x y"), Pair("empty", "")));
    EXPECT_EQ(request.headers.get("x-two"), "spaced");
    EXPECT_EQ(request.body, "hello");
    EXPECT_EQ(request.minor_version, 1);
  }
}

TEST(RequestReader, LeavesTheNextRequestAlone) {
  constexpr std::string_view kNext = "GET /b HTTP/1.1\r\n";
  const Read plain("GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.1\r\n");
  EXPECT_EQ(plain.rest, kNext);
  const Read chunked(
      "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /b HTTP/1.1\r\n");
  EXPECT_EQ(chunked.rest, kNext);
}

TEST(RequestReader, TakesTheFramesOffAChunkedBody) {
  constexpr std::string_view kText =
      "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
      "5\r\nhello\r\n00A;name=value\r\n, chunked \r\n5 \r\nworld\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n";
  for (size_t piece = 1; piece <= kText.size(); ++piece) {
    Read read(kText, piece);
    ASSERT_EQ(read.reader.state(), State::kDone) << piece << " " << read.reader.message();
    EXPECT_EQ(read.reader.request().body, "hello, chunked world");
  }
}

TEST(RequestReader, RefusesMalformedChunks) {
  const std::string head = "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const char* body : {"\r\n", "g\r\n", "5\nhello", "1\r\nab\r\n", "1\r\na\n", "-1\r\n", "1000000000000000\r\n",
                           "1 x\n", "0\r\n\n", "0\r\nTrailer\n", "0\r\n\rx"}) {
    EXPECT_EQ(status_of(head + body), 400) << body;
  }
  EXPECT_EQ(status_of(head + "1;" + std::string(300, 'x')), 400);
  EXPECT_EQ(status_of(head + "0\r\n" + std::string(10'000, 'x')), 400);
  EXPECT_EQ(status_of(head + "41\r\n"), 413);
  EXPECT_EQ(status_of(head + "40\r\n" + std::string(64, 'x') + "\r\n1\r\n"), 413);
  EXPECT_EQ(status_of(head + "fffffffffffffff\r\n"), 413);
}

TEST(RequestReader, RefusesWhatTwoReadersCouldUnderstandDifferently) {
  const std::string head = "POST /a HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(status_of(head + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Content-Length: +1\r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Content-Length: 1,1\r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Content-Length: \r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Content-Length: 99999999999999999999999\r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Transfer-Encoding: gzip, chunked\r\n\r\n"), 501);
  EXPECT_EQ(status_of(head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), 501);
  EXPECT_EQ(status_of("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Content-Length : 1\r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Folded: a\r\n b\r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Split: a\rb\r\n\r\n"), 400);
  EXPECT_EQ(status_of(head + "Bare: a\nContent-Length: 1\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\nHost: x\n\n"), 400);
  EXPECT_EQ(status_of(head + "Host: y\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n\r\n"), 400);
}

TEST(RequestReader, RefusesWhatIsNoRequest) {
  for (const char* line : {"nonsense", "GET /", "GET  HTTP/1.1", "GET / HTTP/1.1 x", "G T / HTTP/1.1", "GET / HTTP/11",
                           "GET / http/1.1", "GET x HTTP/1.1", "GET /a b HTTP/1.1", "GET /%zz HTTP/1.1",
                           "GET /%00 HTTP/1.1", "GET /% HTTP/1.1", "GET /?a=%2 HTTP/1.1", "GET http:///x HTTP/1.1"}) {
    EXPECT_EQ(status_of(std::string(line) + "\r\nHost: x\r\n\r\n"), 400) << line;
  }
  EXPECT_EQ(status_of("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
  EXPECT_EQ(status_of(std::string("GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 29)), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: x\r\nExpect: more\r\n\r\n"), 417);
}

TEST(RequestReader, KeepsItsLimits) {
  EXPECT_EQ(status_of("GET /" + std::string(500, 'x')), 414);
  EXPECT_EQ(status_of("GET /" + std::string(100, 'x') + " HTTP/1.0\r\n\r\n"), 414);
  EXPECT_EQ(status_of("GET /" + std::string(99, 'x') + " HTTP/1.0\r\n\r\n"), 0);
  EXPECT_EQ(status_of("GET / HTTP/1.0\r\nX: " + std::string(2'000, 'x')), 431);
  EXPECT_EQ(status_of("GET / HTTP/1.0\r\nX: " + std::string(2'000, 'x') + "\r\n\r\n"), 431);
  std::string many = "GET / HTTP/1.0\r\n";
  for (int i = 0; i < 10; ++i) many += "X: y\r\n";
  EXPECT_EQ(status_of(many + "\r\n"), 0);
  EXPECT_EQ(status_of(many + "X: y\r\n\r\n"), 431);
  EXPECT_EQ(status_of("POST / HTTP/1.0\r\nContent-Length: 64\r\n\r\n"), 0);
  EXPECT_EQ(status_of("POST / HTTP/1.0\r\nContent-Length: 65\r\n\r\n"), 413);
}

TEST(RequestReader, TakesAddressesWithAHostAndEmptyLinesBefore) {
  Read read("\r\n\r\nGET http://user@host:8000/a?b=c HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_EQ(read.reader.state(), State::kDone) << read.reader.message();
  EXPECT_EQ(read.reader.request().target.path, "/a");
  Read bare("OPTIONS http://host HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(bare.reader.request().target.path, "/");
  Read star("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(star.reader.request().target.path, "*");
}

TEST(RequestReader, SaysWhetherTheConnectionStays) {
  const auto stays = [](const std::string& version, const std::string& fields) {
    return Read("GET / HTTP/" + version + "\r\nHost: x\r\n" + fields + "\r\n").reader.keeps_alive();
  };
  EXPECT_TRUE(stays("1.1", ""));
  EXPECT_FALSE(stays("1.1", "Connection: TE, Close\r\n"));
  EXPECT_FALSE(stays("1.0", ""));
  EXPECT_TRUE(stays("1.0", "Connection: keep-alive\r\n"));
}

}  // namespace request_reader_test
}  // namespace optserve::http
