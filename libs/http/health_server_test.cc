#include "http/health_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/error.h"
#include "http/http_test_client.h"

namespace optserve::http {
namespace health_server_test {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class HealthServerTest : public ::testing::Test {
 protected:
  std::string request(const std::string& text) const {
    TestClient connection(server.port());
    connection.write(text);
    return connection.read_all();
  }
  std::string get(const std::string& path) const {
    return request("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }

  FakeClock clock;
  metrics::Registry registry;
  metrics::Health health{clock};
  HealthServer server{"127.0.0.1", 0, registry, health};
};

TEST_F(HealthServerTest, ServesMetrics) {
  registry.counter("optserve_x_total", "x").add();
  const std::string answer = get("/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(answer, HasSubstr("\noptserve_x_total 1"));
  registry.counter("optserve_x_total", "x").add();
  EXPECT_THAT(get("/metrics"), HasSubstr("\noptserve_x_total 1"));  // the text is young enough
  clock.advance(milliseconds(200));
  EXPECT_THAT(get("/metrics?name=x"), HasSubstr("\noptserve_x_total 2"));
}

TEST_F(HealthServerTest, MetricsTellOfTheProcessItself) {
  const std::string answer = get("/metrics");
  for (const char* name : {"\nprocess_cpu_seconds_total ", "\nprocess_resident_memory_bytes ", "\nprocess_open_fds ",
                           "\nprocess_start_time_seconds ", "\noptserve_usable_cores ",
                           "\noptserve_usable_memory_bytes ", "\noptserve_build_info{program=\""}) {
    EXPECT_THAT(answer, HasSubstr(name));
  }
}

TEST_F(HealthServerTest, AStartShowsHowFarItIs) {
  health.bytes_to_load = 1'200;
  health.loaded_bytes = 300;
  for (const char* path : {"/startupz", "/readyz"}) {
    EXPECT_THAT(get(path), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("loaded 300 of 1200 bytes (25%)"))) << path;
  }
}

TEST_F(HealthServerTest, ReadinessFollowsTheProcess) {
  EXPECT_THAT(get("/startupz"), StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(get("/readyz"), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("not started")));
  health.started = true;
  EXPECT_THAT(get("/startupz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(get("/readyz"), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("not ready")));
  health.set_problem("the scheduler is silent");
  EXPECT_THAT(get("/readyz"), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("for work: the scheduler is silent")));
  health.ready = true;
  EXPECT_THAT(get("/readyz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HealthServerTest, LivenessFollowsTheLoop) {
  EXPECT_THAT(get("/livez"), StartsWith("HTTP/1.1 200"));  // no loop yet: the process is starting
  health.stamp();
  EXPECT_THAT(get("/livez"), StartsWith("HTTP/1.1 200"));
  clock.advance(milliseconds(10'001));
  EXPECT_THAT(get("/livez"), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("at most 10000 ms")));
}

TEST_F(HealthServerTest, OtherRequestsGetTheRightError) {
  EXPECT_THAT(get("/"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(get("/metrics/x"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(request("POST /metrics HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(request("nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(request("GET /metrics\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(request("GET /" + std::string(9'000, 'x')), StartsWith("HTTP/1.1 414"));
}

TEST_F(HealthServerTest, HeadHasNoBody) {
  const std::string answer = request("HEAD /livez HTTP/1.0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("Content-Length: 9\r\n"));
  EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\n"));
}

TEST_F(HealthServerTest, RequestMayArriveInPiecesAndEndEarly) {
  TestClient connection(server.port());
  for (const char c : std::string("GET /livez HTTP/1.1\r\nHost: x\r\n")) {
    connection.write(std::string(1, c));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  connection.write("\r\n");
  connection.close_sending_side();
  EXPECT_THAT(connection.read_all(), StartsWith("HTTP/1.1 200"));
}

TEST_F(HealthServerTest, IdleConnectionsEndAndServiceGoesOn) {
  std::vector<std::unique_ptr<TestClient>> idle;
  for (int i = 0; i < 20; ++i) idle.push_back(std::make_unique<TestClient>(server.port()));
  idle.front()->write("GET /met");
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_THAT(idle.front()->read_all(), StartsWith("HTTP/1.1 408"));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(7));
  EXPECT_EQ(idle[1]->read_all(), "");  // nothing was asked
  idle.clear();
  EXPECT_THAT(get("/livez"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HealthServerTest, ManyScrapersAreServed) {
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) good += get("/metrics").starts_with("HTTP/1.1 200");
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 320);
}

TEST(HealthServer, ListenErrorsNameTheAddress) {
  const SystemClock clock;
  metrics::Registry registry;
  metrics::Health health(clock);
  const HealthServer first("127.0.0.1", 0, registry, health);
  EXPECT_THAT([&] { HealthServer("127.0.0.1", first.port(), registry, health); },
              ::testing::ThrowsMessage<Error>(HasSubstr("127.0.0.1:" + std::to_string(first.port()))));
  EXPECT_THAT([&] { HealthServer("not-an-address", 0, registry, health); },
              ::testing::ThrowsMessage<Error>(HasSubstr("not-an-address")));
  EXPECT_THAT([&] { HealthServer("127.0.0.1", 70'000, registry, health); },
              ::testing::ThrowsMessage<Error>(HasSubstr("70000")));
}

TEST(HealthServer, StopsWithOpenConnections) {
  const SystemClock clock;
  metrics::Registry registry;
  metrics::Health health(clock);
  auto server = std::make_unique<HealthServer>("127.0.0.1", 0, registry, health);
  TestClient open(server->port());
  open.write("GET ");
  TestClient answered(server->port());  // connections are accepted in order: the server has the first one now
  answered.write("GET /livez HTTP/1.0\r\n\r\n");
  EXPECT_THAT(answered.read_all(), StartsWith("HTTP/1.1 200"));
  server.reset();
  EXPECT_EQ(open.read_all(), "");
}

}  // namespace health_server_test
}  // namespace optserve::http
