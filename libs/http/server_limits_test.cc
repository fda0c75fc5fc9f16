#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "base/clock.h"
#include "http/http_test_client.h"
#include "http/server.h"

namespace optserve::http {
namespace server_limits_test {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using ExchangePtr = std::shared_ptr<Exchange>;

class ServerLimitsTest : public ::testing::Test {
 protected:
  Server& start(const ServerLimits& limits) {
    server = std::make_unique<Server>(ServerOptions{.limits = limits}, clock, ServerHooks{});
    const auto echo = [](const ExchangePtr& exchange) { exchange->answer({.body = exchange->request().body}); };
    server->route("POST", "/small", echo, {.body_bytes_max = 10});
    server->route("POST", "/large", echo, {.body_bytes_max = 100 << 20});
    server->route("GET", "/hello", [](const ExchangePtr& exchange) { exchange->answer({.body = "hello"}); });
    server->route("GET", "/much",
                  [](const ExchangePtr& exchange) { exchange->answer({.body = std::string(64 << 20, 'x')}); });
    server->route("GET", "/later", [this](const ExchangePtr& exchange) { held.push_back(exchange); });
    server->start();
    return *server;
  }
  std::string ask(const std::string& text) const {
    TestClient client(server->port());
    client.write(text);
    return client.read_all();
  }
  bool answers() const { return ask("GET /hello HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nhello"); }

  SystemClock clock;
  std::vector<ExchangePtr> held;
  std::unique_ptr<Server> server;
};

// Counts the bytes that come, and refuses those with an x.
struct CountingSink final : BodySink {
  bool take(std::string_view bytes, Refused& why) override {
    count += bytes.size();
    why = {422, "an x"};
    return bytes.find('x') == std::string_view::npos;
  }
  size_t count = 0;
};

TEST_F(ServerLimitsTest, ABodyMayGoElsewhereThanIntoMemory) {
  server = std::make_unique<Server>(ServerOptions{.limits = {.bodies_bytes_max = 1'000}}, clock, ServerHooks{});
  const auto count = [](const ExchangePtr& exchange) {
    EXPECT_EQ(exchange->request().body, "");
    const auto& sink = static_cast<const CountingSink&>(*exchange->request().sink);
    exchange->answer({.body = "took " + std::to_string(sink.count)});
  };
  server->route("POST", "/count", count, {.body_bytes_max = 5'000'000, .body_sink = [](const Request&, const auto&) {
                                            return std::make_shared<CountingSink>();
                                          }});
  server->start();
  const std::string head = "POST /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
  const std::string much(5'000'000, 'a');
  EXPECT_THAT(ask(head + "Content-Length: 5000000\r\n\r\n" + much), EndsWith("took 5000000"));
  EXPECT_THAT(ask(head + "Transfer-Encoding: chunked\r\n\r\n4c4b40\r\n" + much + "\r\n0\r\n\r\n"),
              EndsWith("took 5000000"));
  EXPECT_THAT(ask(head + "Content-Length: 0\r\n\r\n"), EndsWith("took 0"));
  EXPECT_THAT(ask(head + "Content-Length: 5000001\r\n\r\n" + much), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(ask(head + "Transfer-Encoding: chunked\r\n\r\n4c4b41\r\na" + much + "\r\n0\r\n\r\n"),
              StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(ask(head + "Content-Length: 4\r\n\r\naxaa"), StartsWith("HTTP/1.1 422"));
}

// Takes only one piece until it is told that there is room.
struct SlowSink final : BodySink {
  bool take(std::string_view bytes, Refused&) override {
    taken += bytes.size();
    is_waiting = true;
    return true;
  }
  bool is_full() const override { return is_waiting; }
  std::atomic<size_t> taken{0};
  std::atomic<bool> is_waiting{false};
};

TEST_F(ServerLimitsTest, APeerIsNotReadWhileWhatTakesItsBodyIsFull) {
  server = std::make_unique<Server>(ServerOptions{}, clock, ServerHooks{});
  std::promise<std::pair<std::shared_ptr<SlowSink>, std::function<void()>>> made;
  server->route("POST", "/slow", [](const ExchangePtr& exchange) { exchange->answer({.body = "all"}); },
                {.body_bytes_max = 50'000'000, .body_sink = [&made](const Request&, std::function<void()> on_room) {
                   auto sink = std::make_shared<SlowSink>();
                   made.set_value({sink, std::move(on_room)});
                   return sink;
                 }});
  server->start();
  constexpr size_t kBytes = 20'000'000;
  TestClient client(server->port());
  std::thread sender([&client] {
    client.write("POST /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " + std::to_string(kBytes) +
                 "\r\n\r\n" + std::string(kBytes, 'a'));
  });
  const auto [sink, on_room] = made.get_future().get();
  std::this_thread::sleep_for(milliseconds(100));
  const size_t first = sink->taken;
  EXPECT_GT(first, 0u);
  EXPECT_LE(first, 200'000u);
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(sink->taken, first);
  on_room();  // still full
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(sink->taken, first);
  while (sink->taken < kBytes) {
    sink->is_waiting = false;
    on_room();
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  sender.join();
  EXPECT_THAT(client.read_answer(), EndsWith("all"));
  on_room();  // after the end
}

TEST_F(ServerLimitsTest, EachRouteLimitsItsBodies) {
  start({});
  const std::string head = " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
  EXPECT_THAT(ask("POST /small" + head + "Content-Length: 10\r\n\r\n0123456789"), EndsWith("\r\n\r\n0123456789"));
  EXPECT_THAT(ask("POST /small" + head + "Content-Length: 11\r\n\r\n0123456789"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(ask("POST /small" + head + "Expect: 100-continue\r\nContent-Length: 11\r\n\r\n"),
              StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(ask("POST /small" + head + "Transfer-Encoding: chunked\r\n\r\nb\r\n"), StartsWith("HTTP/1.1 413"));
  // A peer that is still sending when it is refused can go on and gets its answer instead of a reset.
  const std::string much(8 << 20, 'x');
  for (const std::string path : {"/small", "/nothing"}) {
    TestClient client(server->port());
    EXPECT_TRUE(
        client.write("POST " + path + head + "Content-Length: " + std::to_string(much.size()) + "\r\n\r\n" + much));
    EXPECT_THAT(client.read_all(), StartsWith(path == "/small" ? "HTTP/1.1 413" : "HTTP/1.1 404"));
  }
}

TEST_F(ServerLimitsTest, HeadsAreLimited) {
  start({.head = {.target_bytes_max = 100, .head_bytes_max = 1'000, .fields_max = 5}});
  EXPECT_THAT(ask("GET /" + std::string(200, 'x') + " HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 414"));
  EXPECT_THAT(ask("GET / HTTP/1.1\r\nX: " + std::string(2'000, 'x')), StartsWith("HTTP/1.1 431"));
}

TEST_F(ServerLimitsTest, BodiesTogetherAreLimited) {
  start({.bodies_bytes_max = 1 << 20});
  TestClient holds(server->port());
  holds.write("POST /large HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_TRUE(answers());  // the server has read what came before
  const std::string other = "POST /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n" +
                            std::string(100'000, 'x');
  EXPECT_THAT(ask(other), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("Retry-After: ")));
  const std::string chunk = "186A0\r\n" + std::string(100'000, 'x') + "\r\n0\r\n\r\n";
  EXPECT_THAT(ask("POST /large HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk),
              StartsWith("HTTP/1.1 503"));
  holds.write(std::string(1'000'000, 'y'));
  EXPECT_THAT(holds.read_answer(), EndsWith("yyy"));
  EXPECT_THAT(ask(other), EndsWith("xxx"));
}

TEST_F(ServerLimitsTest, ARequestHasToArriveInItsTime) {
  start({.request_timeout = milliseconds(300), .idle_timeout = milliseconds(100)});
  TestClient silent(server->port()), slow(server->port()), body(server->port());
  body.write("POST /large HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
  std::thread drip([&] {  // never idle, never done
    for (int i = 0; i < 60; ++i) {
      slow.write(i == 0 ? "GET /hello HTTP/1.1\r\nX: " : "x");
      body.write("x");
      std::this_thread::sleep_for(milliseconds(10));
    }
  });
  EXPECT_EQ(silent.read_all(), "");
  EXPECT_THAT(slow.read_all(), StartsWith("HTTP/1.1 408"));
  EXPECT_THAT(body.read_all(), StartsWith("HTTP/1.1 408"));
  drip.join();
  TestClient idle(server->port());
  idle.write("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(idle.read_all(), EndsWith("\r\n\r\nhello"));  // closed after its idle time
}

TEST_F(ServerLimitsTest, AnAnswerHasToBeReadInItsTime) {
  start({.answer_timeout = milliseconds(200)});
  TestClient slow(server->port(), 4'096);
  slow.write("GET /much HTTP/1.1\r\nHost: x\r\n\r\n");
  for (int i = 0; i < 40; ++i) {  // it goes on all the time, but slowly
    slow.read_some(64 << 10);
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_LT(slow.read_all().size(), 50u << 20);
}

TEST_F(ServerLimitsTest, FurtherConnectionsWaitForTheirTurn) {
  start({.connections_max = 4, .request_timeout = milliseconds(200)});
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 12; ++i) {
    clients.push_back(std::make_unique<TestClient>(server->port()));
    if (i >= 4) clients.back()->write("GET /hello HTTP/1.0\r\n\r\n");
  }
  for (int i = 11; i >= 4; --i) EXPECT_THAT(clients[static_cast<size_t>(i)]->read_all(), EndsWith("\r\n\r\nhello"));
}

TEST_F(ServerLimitsTest, ThousandsOfIdleConnectionsAreServed) {
  start({});
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 500; ++i) clients.push_back(std::make_unique<TestClient>(server->port()));
  for (const auto& client : clients) client->write("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  for (const auto& client : clients) EXPECT_THAT(client->read_answer(), EndsWith("\r\n\r\nhello"));
  for (const auto& client : clients) client->write("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  for (const auto& client : clients) EXPECT_THAT(client->read_answer(), EndsWith("\r\n\r\nhello"));
}

TEST_F(ServerLimitsTest, TheServerEndsWithRequestsUnderWay) {
  start({});
  TestClient waits(server->port()), partial(server->port());
  partial.write("GET /he");
  waits.write("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(answers());
  server.reset();
  EXPECT_EQ(waits.read_all(), "");
  EXPECT_EQ(partial.read_all(), "");
  ASSERT_EQ(held.size(), 1u);
  EXPECT_FALSE(held[0]->is_open());
  held[0]->answer({.body = "nobody hears it"});
}

TEST_F(ServerLimitsTest, ListenErrorsNameTheAddress) {
  EXPECT_THAT([&] { Server({.address = "not-an-address"}, clock, {}); },
              ::testing::ThrowsMessage<Error>(HasSubstr("not-an-address")));
}

}  // namespace server_limits_test
}  // namespace optserve::http
