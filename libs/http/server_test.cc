#include "http/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "base/clock.h"
#include "http/http_test_client.h"

namespace optserve::http {
namespace server_test {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using ExchangePtr = std::shared_ptr<Exchange>;

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    server.route("POST", "/echo",
                 [](const ExchangePtr& exchange) { exchange->answer({.body = exchange->request().body}); });
    server.route("GET", "/jobs/{id}", [](const ExchangePtr& exchange) {
      exchange->answer({.body = std::string(exchange->request().parameter("id"))});
    });
    server.route("GET", "/throws", [](const ExchangePtr&) { throw Error("broken"); });
    server.route("GET", "/forgets", [](const ExchangePtr&) {});
    server.route("GET", "/later", [this](const ExchangePtr& exchange) { held.set_value(exchange); });
    server.start();
  }
  static ServerHooks make_hooks() {
    ServerHooks hooks;
    hooks.on_request = [](Request& request) -> std::optional<Answer> {
      request.id = std::string(request.headers.get("X-Request-Id"));
      if (request.headers.get("Authorization") == "bad") return Answer{.status = 401, .body = "no"};
      return std::nullopt;
    };
    hooks.add_headers = [](const Request* request, Headers& headers) {
      headers.set("X-Request-Id", request == nullptr || request->id.empty() ? "none" : request->id);
    };
    return hooks;
  }
  std::string ask(const std::string& text) const {
    TestClient client(server.port());
    client.write(text);
    return client.read_all();
  }

  SystemClock clock;
  metrics::Registry registry;
  std::promise<ExchangePtr> held;
  Server server{{.registry = &registry}, clock, make_hooks()};
};

TEST_F(ServerTest, AnswersAndKeepsTheConnection) {
  TestClient client(server.port());
  for (const char* id : {"a", "b", "c"}) {
    client.write("GET /jobs/" + std::string(id) + " HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-" + id + "\r\n\r\n");
    const std::string answer = client.read_answer();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(answer, HasSubstr("\r\nX-Request-Id: r-" + std::string(id) + "\r\n"));
    EXPECT_THAT(answer, HasSubstr("\r\nDate: "));
    EXPECT_THAT(answer, Not(HasSubstr("Connection:")));
    EXPECT_THAT(answer, EndsWith(std::string("\r\n\r\n") + id));
  }
  client.write("GET /jobs/d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.read_all(), AllOf(HasSubstr("Connection: close\r\n"), EndsWith("\r\n\r\nd")));
}

TEST_F(ServerTest, AnswersPipelinedRequestsInOrder) {
  TestClient client(server.port());
  std::string all;
  for (int i = 0; i < 2'000; ++i) {
    all += "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n" + std::to_string(10'000 + i);
  }
  std::thread writer([&] { client.write(all); });
  for (int i = 0; i < 2'000; ++i) {
    ASSERT_THAT(client.read_answer(), EndsWith("\r\n\r\n" + std::to_string(10'000 + i)));
  }
  writer.join();
  client.close_sending_side();
  EXPECT_EQ(client.read_all(), "");
}

TEST_F(ServerTest, PipelinedRequestsAreAnsweredAfterTheSendingSideIsClosed) {
  TestClient client(server.port());
  client.write("GET /jobs/a HTTP/1.1\r\nHost: x\r\n\r\nGET /jobs/b HTTP/1.1\r\nHost: x\r\n\r\nGET /jo");
  client.close_sending_side();
  EXPECT_THAT(client.read_answer(), EndsWith("\r\n\r\na"));
  EXPECT_THAT(client.read_answer(), EndsWith("\r\n\r\nb"));
  EXPECT_EQ(client.read_all(), "");
}

TEST_F(ServerTest, ServesPeersOfTheOldVersion) {
  EXPECT_THAT(ask("GET /jobs/a HTTP/1.0\r\n\r\n"),
              AllOf(HasSubstr("\r\nConnection: close\r\n"), EndsWith("\r\n\r\na")));
  TestClient client(server.port());
  for (int i = 0; i < 2; ++i) {
    client.write("GET /jobs/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_THAT(client.read_answer(), AllOf(HasSubstr("\r\nConnection: keep-alive\r\n"), EndsWith("\r\n\r\na")));
  }
}

TEST_F(ServerTest, SaysWhatAPathTakes) {
  EXPECT_THAT(ask("GET /nothing HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(ask("GET /echo HTTP/1.0\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 405"), HasSubstr("\r\nAllow: OPTIONS, POST\r\n")));
  EXPECT_THAT(ask("OPTIONS /jobs/a HTTP/1.0\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 204"), HasSubstr("\r\nAllow: GET, HEAD, OPTIONS\r\n"), EndsWith("\r\n\r\n")));
  EXPECT_THAT(ask("HEAD /jobs/abc HTTP/1.0\r\n\r\n"), AllOf(HasSubstr("Content-Length: 3\r\n"), EndsWith("\r\n\r\n")));
}

TEST_F(ServerTest, RefusedRequestsWithASmallBodyKeepTheConnection) {
  TestClient client(server.port());
  client.write("POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_THAT(client.read_answer(), StartsWith("HTTP/1.1 404"));
  client.write("POST /echo HTTP/1.1\r\nHost: x\r\nAuthorization: bad\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_THAT(client.read_answer(), StartsWith("HTTP/1.1 401"));
  client.write("GET /jobs/a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.read_answer(), EndsWith("\r\n\r\na"));
}

TEST_F(ServerTest, HandlersThatFailOrForgetAreAnsweredFor) {
  EXPECT_THAT(ask("GET /throws HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 500"));
  EXPECT_THAT(ask("GET /forgets HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 500"));
}

TEST_F(ServerTest, TakesBodiesInChunksAndAfterAnInterimAnswer) {
  EXPECT_THAT(ask("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
              EndsWith("\r\n\r\nabcde"));
  TestClient client(server.port());
  client.write("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.write("ok");
  EXPECT_THAT(client.read_answer(), EndsWith("\r\n\r\nok"));
  client.write("POST /nothing HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_THAT(client.read_all(), AllOf(StartsWith("HTTP/1.1 404"), HasSubstr("Connection: close\r\n")));
}

TEST_F(ServerTest, OtherThreadsAnswerThroughPost) {
  TestClient client(server.port());
  client.write("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  ExchangePtr exchange = held.get_future().get();
  server.post([exchange = std::move(exchange)] { exchange->answer({.body = "at last"}); });
  EXPECT_THAT(client.read_answer(), EndsWith("\r\n\r\nat last"));
}

TEST_F(ServerTest, APeerThatOnlyEndsItsSendingSideGetsItsAnswer) {
  TestClient client(server.port());
  client.write("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  ExchangePtr exchange = held.get_future().get();
  client.close_sending_side();
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");  // the server asks whether it is there
  server.post([exchange = std::move(exchange)] { exchange->answer({.body = "at last"}); });
  EXPECT_THAT(client.read_all(), AllOf(StartsWith("HTTP/1.1 200"), EndsWith("\r\n\r\nat last")));
}

TEST_F(ServerTest, APeerOfTheOldVersionThatEndsItsSendingSideCountsAsGone) {
  TestClient client(server.port());
  client.write("GET /later HTTP/1.0\r\n\r\n");
  ExchangePtr exchange = held.get_future().get();
  client.close_sending_side();
  EXPECT_EQ(client.read_all(), "");
  server.post([exchange = std::move(exchange)] { EXPECT_FALSE(exchange->is_open()); });
}

TEST_F(ServerTest, APeerThatHasGoneIsNoticedBeforeItsAnswer) {
  for (const char* version : {"1.1", "1.0"}) {
    held = {};
    TestClient client(server.port());
    client.write("GET /later HTTP/" + std::string(version) + "\r\nHost: x\r\n\r\n");
    ExchangePtr exchange = held.get_future().get();
    std::promise<void> closed;
    server.post([&closed, exchange] { exchange->on_closed([&closed] { closed.set_value(); }); });
    client.close();
    EXPECT_EQ(closed.get_future().wait_for(seconds(5)), std::future_status::ready) << version;
    std::promise<bool> is_open;
    server.post([&is_open, exchange] { is_open.set_value(exchange->is_open()); });
    EXPECT_FALSE(is_open.get_future().get());
    server.post([exchange = std::move(exchange)] { exchange->answer({.body = "nobody hears it"}); });
  }
  EXPECT_THAT(ask("GET /jobs/a HTTP/1.0\r\n\r\n"), EndsWith("\r\n\r\na"));
}

TEST_F(ServerTest, GarbageIsRefused) {
  EXPECT_THAT(ask("\x16\x03\x01\x02 garbage\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("GET / HTTP/2.0\r\n\r\n"), StartsWith("HTTP/1.1 505"));
  EXPECT_THAT(ask("GET / HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
              StartsWith("HTTP/1.1 400"));
}

TEST_F(ServerTest, CountsByRouteAndStatus) {
  ask("GET /jobs/a HTTP/1.0\r\n\r\n");
  ask("GET /jobs/b HTTP/1.0\r\n\r\n");
  ask("GET /other HTTP/1.0\r\n\r\n");
  ask("WHATEVER /other HTTP/1.0\r\n\r\n");
  const std::string text = registry.text();
  EXPECT_THAT(text, HasSubstr("method=\"other\",route=\"other\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("optserve_http_request_seconds_count{route=\"/jobs/{id}\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("optserve_http_requests_total{code=\"200\",method=\"GET\",route=\"/jobs/{id}\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("optserve_http_requests_total{code=\"404\",method=\"GET\",route=\"other\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("optserve_http_first_byte_seconds_count{route=\"/jobs/{id}\"} 2\n"));
}

TEST_F(ServerTest, DrainEndsIdleConnectionsAndWaitsForAnswers) {
  TestClient idle(server.port());
  idle.write("GET /jobs/a HTTP/1.1\r\nHost: x\r\n\r\n");
  idle.read_answer();
  TestClient busy(server.port());
  busy.write("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  ExchangePtr exchange = held.get_future().get();
  std::thread drain([&] { EXPECT_TRUE(server.drain(seconds(8))); });
  EXPECT_EQ(idle.read_all(), "");
  EXPECT_THROW(TestClient(server.port()), Error);
  server.post([exchange = std::move(exchange)] { exchange->answer({.body = "done"}); });
  EXPECT_THAT(busy.read_all(), AllOf(HasSubstr("Connection: close\r\n"), EndsWith("\r\n\r\ndone")));
  busy.close();
  const auto begun = std::chrono::steady_clock::now();
  drain.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(2));
}

TEST_F(ServerTest, DelayedWorkRunsInOrderOfItsTime) {
  std::promise<std::string> result;
  std::string order;
  server.post([&] {
    server.call_after(milliseconds(30), [&] { result.set_value(order + "b"); });
    server.call_after(milliseconds(1), [&] { order += "a"; });
    server.call_after(seconds(1'000), [] {});  // the server ends before
  });
  EXPECT_EQ(result.get_future().get(), "ab");
}

}  // namespace server_test
}  // namespace optserve::http
