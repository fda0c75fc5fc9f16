#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "base/clock.h"
#include "http/http_test_client.h"
#include "http/server.h"

namespace optserve::http {
namespace stream_test {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

using ExchangePtr = std::shared_ptr<Exchange>;

class StreamTest : public ::testing::Test {
 protected:
  explicit StreamTest(milliseconds answer_timeout = seconds(60)) : timeout(answer_timeout) {
    server.route("GET", "/later", [this](const ExchangePtr& exchange) {
      const std::lock_guard lock(mutex);
      held.push_back(exchange);
      changed.notify_all();
    });
    server.route("GET", "/three", [](const ExchangePtr& exchange) {
      exchange->begin_stream(200, sse_headers());
      for (const char* word : {"one", "two", "three"}) exchange->write(sse_frame(word));
      exchange->end();
    });
    server.start();
  }
  // The exchanges of this many requests for /later.
  std::vector<ExchangePtr> take(size_t count) {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, seconds(8), [&] { return held.size() >= count; });
    return std::exchange(held, {});
  }
  void on_server(const std::function<void()>& work) {
    std::promise<void> done;
    server.post([&] {
      work();
      done.set_value();
    });
    done.get_future().get();
  }
  static std::string request(const std::string& version = "1.1") {
    return "GET /later HTTP/" + version + "\r\nHost: x\r\n\r\n";
  }

  const milliseconds timeout;
  SystemClock clock;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<ExchangePtr> held;
  Server server{{.limits = {.stream_bytes_max = 256 << 10, .answer_timeout = timeout}}, clock, {}};
};

TEST_F(StreamTest, IsSentInChunksAndKeepsTheConnection) {
  TestClient client(server.port());
  for (int i = 0; i < 2; ++i) {
    client.write("GET /three HTTP/1.1\r\nHost: x\r\n\r\n");
    const std::string head = client.read_until("\r\n\r\n");
    EXPECT_THAT(head, HasSubstr("\r\nContent-Type: text/event-stream; charset=utf-8\r\n"));
    EXPECT_THAT(head, HasSubstr("\r\nCache-Control: no-cache\r\n"));
    EXPECT_THAT(head, HasSubstr("\r\nX-Accel-Buffering: no\r\n"));
    EXPECT_THAT(head, HasSubstr("\r\nTransfer-Encoding: chunked\r\n"));
    EXPECT_EQ(client.read_until("0\r\n\r\n"),
              "b\r\ndata: one\n\n\r\nb\r\ndata: two\n\n\r\nd\r\ndata: three\n\n\r\n0\r\n\r\n");
  }
}

TEST_F(StreamTest, GoesToTheEndOfTheConnectionForPeersOfTheOldVersion) {
  TestClient client(server.port());
  client.write("GET /three HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const std::string answer = client.read_all();
  EXPECT_THAT(answer, Not(HasSubstr("Transfer-Encoding")));
  EXPECT_THAT(answer, HasSubstr("\r\nConnection: close\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\ndata: one\n\ndata: two\n\ndata: three\n\n"));
}

TEST_F(StreamTest, HeadHasNoBody) {
  TestClient client(server.port());
  client.write("HEAD /three HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.read_all(), EndsWith("\r\n\r\n"));
}

TEST_F(StreamTest, ManyRunAtOnce) {
  constexpr size_t kStreams = 500;
  std::vector<std::unique_ptr<TestClient>> clients;
  for (size_t i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<TestClient>(server.port()));
    clients.back()->write(request());
  }
  std::vector<ExchangePtr> streams = take(kStreams);
  ASSERT_EQ(streams.size(), kStreams);
  on_server([&] {
    for (const auto& stream : streams) stream->begin_stream(200, sse_headers());
  });
  for (int token = 0; token < 20; ++token) {
    on_server([&] {
      for (const auto& stream : streams) stream->write(sse_frame(std::to_string(token)));
    });
  }
  on_server([&] {
    for (const auto& stream : streams) stream->end();
    streams.clear();
  });
  for (const auto& client : clients) {
    const std::string all = client->read_until("0\r\n\r\n");
    EXPECT_THAT(all, AllOf(HasSubstr("data: 0\n\n"), HasSubstr("data: 19\n\n"), EndsWith("\r\n0\r\n\r\n")));
  }
}

TEST_F(StreamTest, ACutStreamIsVisiblyIncomplete) {
  for (const char* version : {"1.1", "1.0"}) {
    TestClient client(server.port());
    client.write(request(version));
    auto streams = take(1);
    ASSERT_EQ(streams.size(), 1u);
    bool closed_called = false;
    on_server([&] {
      streams[0]->on_closed([&] { closed_called = true; });
      streams[0]->begin_stream(200, sse_headers());
      streams[0]->write(sse_frame("last words"));
      streams[0]->abort();
    });
    const std::string answer = client.read_all();
    EXPECT_THAT(answer, HasSubstr("data: last words\n\n"));
    EXPECT_THAT(answer, Not(HasSubstr("0\r\n\r\n")));
    EXPECT_EQ(answer.ends_with("(reset)"), version == std::string("1.0"));
    EXPECT_FALSE(closed_called);
    on_server([&] { streams.clear(); });
  }
}

TEST_F(StreamTest, AForgottenStreamIsCut) {
  TestClient client(server.port());
  client.write(request());
  auto streams = take(1);
  on_server([&] {
    streams[0]->begin_stream(200, sse_headers());
    streams[0]->write(sse_frame("x"));
    streams.clear();
  });
  EXPECT_THAT(client.read_all(), EndsWith("data: x\n\n\r\n"));
}

TEST_F(StreamTest, ASlowReaderIsToldOfOnceAndHoldsLittleMemory) {
  TestClient client(server.port(), 4'096);
  client.write(request());
  auto streams = take(1);
  std::atomic<int> slow{0}, drained{0};
  std::promise<void> closed;
  const std::string piece(16 << 10, 'x');
  on_server([&] {
    streams[0]->on_slow([&] { ++slow; });
    streams[0]->on_drained([&] { ++drained; });
    streams[0]->on_closed([&] { closed.set_value(); });
    streams[0]->begin_stream(200, sse_headers());
  });
  size_t most = 0;
  for (int i = 0; i < 10'000 && slow == 0; ++i) {
    on_server([&] {
      streams[0]->write(piece);
      most = std::max(most, streams[0]->buffered_bytes());
    });
  }
  EXPECT_EQ(slow, 1);
  EXPECT_GT(most, size_t{256} << 10);
  EXPECT_LT(most, size_t{300} << 10);
  drained = 0;
  // The reader reads again, and everything is taken.
  on_server([&] { streams[0]->write("end of the first part"); });
  EXPECT_THAT(client.read_until("first part"), Not(HasSubstr("(timeout)")));
  for (int i = 0; i < 200 && drained == 0; ++i) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_GT(drained, 0);
  // If the owner goes on writing, the connection is lost at four times the bound.
  bool is_open = true;
  for (int i = 0; i < 10'000 && is_open; ++i) {
    on_server([&] {
      streams[0]->write(piece);
      is_open = streams[0]->is_open();
      most = std::max(most, streams[0]->buffered_bytes());
    });
  }
  EXPECT_FALSE(is_open);
  EXPECT_GE(slow, 2);  // the operating system may have taken everything in between
  EXPECT_LT(most, size_t{1100} << 10);
  EXPECT_EQ(closed.get_future().wait_for(seconds(5)), std::future_status::ready);
  on_server([&] { streams.clear(); });
}

class ImpatientStreamTest : public StreamTest {
 protected:
  ImpatientStreamTest() : StreamTest(milliseconds(500)) {}
};

TEST_F(ImpatientStreamTest, AReaderThatStopsIsLost) {
  TestClient client(server.port(), 4'096);
  client.write(request());
  auto streams = take(1);
  std::promise<void> closed;
  on_server([&] {
    streams[0]->on_closed([&] { closed.set_value(); });
    streams[0]->on_slow([] {});
    streams[0]->begin_stream(200, sse_headers());
  });
  const std::string piece(64 << 10, 'x');
  for (int full = 0; full < 20;) {  // times in a row that the operating system takes no more
    on_server([&] {
      full = streams[0]->buffered_bytes() > 200'000 ? full + 1 : 0;
      if (full == 0) streams[0]->write(piece);
    });
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_EQ(closed.get_future().wait_for(seconds(6)), std::future_status::ready);
  on_server([&] { streams.clear(); });
}

TEST_F(StreamTest, APeerThatLeavesIsNoticed) {
  for (const bool writes : {true, false}) {
    TestClient client(server.port());
    client.write(request());
    auto streams = take(1);
    std::promise<void> closed;
    on_server([&] {
      streams[0]->on_closed([&] { closed.set_value(); });
      streams[0]->on_half_closed([stream = streams[0].get()] { stream->write(": still there?\n\n"); });
      streams[0]->begin_stream(200, sse_headers());
      streams[0]->write(sse_frame("x"));
    });
    client.read_until("data: x\n\n");
    client.close();
    auto told = closed.get_future();
    for (int i = 0; writes && i < 500 && told.wait_for(milliseconds(5)) != std::future_status::ready; ++i) {
      on_server([&] { streams[0]->write(sse_frame("y")); });
    }
    EXPECT_EQ(told.wait_for(seconds(5)), std::future_status::ready) << writes;
    on_server([&] { streams.clear(); });
  }
}

TEST_F(StreamTest, APeerThatEndsItsSendingSideGetsTheRest) {
  TestClient client(server.port());
  client.write(request());
  auto streams = take(1);
  std::promise<void> half_closed;
  on_server([&] {
    streams[0]->on_half_closed([&] { half_closed.set_value(); });
    streams[0]->begin_stream(200, sse_headers());
    streams[0]->write(sse_frame("x"));
  });
  client.close_sending_side();
  ASSERT_EQ(half_closed.get_future().wait_for(seconds(5)), std::future_status::ready);
  on_server([&] {
    streams[0]->write(sse_frame("y"));
    streams[0]->end();
    streams.clear();
  });
  EXPECT_THAT(client.read_all(), EndsWith("data: y\n\n\r\n0\r\n\r\n"));
}

}  // namespace stream_test
}  // namespace optserve::http
