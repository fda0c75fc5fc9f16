// The gateway between real sockets: HTTP clients in front of it, a fake scheduler behind it.
#include "gateway/service/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/client.h"
#include "client/fake_scheduler.h"
#include "http/http_test_client.h"

namespace optserve::gateway {
namespace gateway_test {

using client::FakeScheduler;
using http::TestClient;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class GatewayTest : public ::testing::Test {
 protected:
  GatewayTest() {
    scheduler.start();
    GatewayOptions options;
    options.schedulers = {scheduler.endpoint()};
    options.http = "127.0.0.1:0";
    options.cors_origins = {"https://page.example"};
    std::vector<std::unique_ptr<model_text::ServedModel>> loaded;
    gateway = std::make_unique<Gateway>(options, std::make_unique<http_api::Models>(std::move(loaded), 1), nullptr,
                                        registry, health, clock);
  }
  ~GatewayTest() override { gateway.reset(); }

  static std::string post(const std::string& path, const std::string& body, const std::string& fields = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + fields +
           "\r\n" + body;
  }
  std::string ask(const std::string& request) const {
    TestClient client(gateway->port());
    client.write(request);
    return client.read_answer();
  }
  static nlohmann::json body_of(const std::string& answer) {
    return nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n") + 4));
  }
  size_t running() const {
    client::Client client({.endpoints = scheduler.endpoint()});
    protocol::JobFilter filter;
    filter.state = protocol::JobState::kRunning;
    return client.list(filter, 100).at(0).answer.value().jobs.size();
  }
  bool wait_for(const std::function<bool()>& condition) const {
    const Instant until = SystemClock().now() + seconds(8);
    while (!condition() && SystemClock().now() < until) std::this_thread::sleep_for(milliseconds(2));
    return condition();
  }

  FakeClock clock;
  metrics::Registry registry;
  metrics::Health health{clock};
  FakeScheduler::Faults faults;
  FakeScheduler scheduler{faults};
  std::unique_ptr<Gateway> gateway;
};

TEST_F(GatewayTest, EveryRouteIsDescribed) {
  const nlohmann::json document = body_of(ask("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_GT(document["paths"].size(), 30u);
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      EXPECT_NE(operation["summary"], "") << method << " " << path << " (libs/http_api/openapi/openapi.cc)";
    }
  }
}

const std::string kBody = R"({"model":"m","prompt":"Once","max_tokens":40)";

TEST_F(GatewayTest, AnswersACompletion) {
  const std::string answer = ask(post("/v1/completions", kBody + "}", "x-request-id: my-1\r\n"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nx-request-id: my-1\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Type: application/json\r\n"));
  EXPECT_EQ(body_of(answer)["id"], "cmpl-my-1");
  EXPECT_EQ(body_of(answer)["choices"][0]["text"], FakeScheduler::text_of("Once"));
}

TEST_F(GatewayTest, StreamsTheSameText) {
  TestClient client(gateway->port());
  client.write(post("/v1/completions", kBody + R"(,"stream":true,"n":2})"));
  const std::string head = client.read_until("\r\n\r\n");
  EXPECT_THAT(head, AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("\r\nContent-Type: text/event-stream")));
  std::string texts[2];
  while (true) {
    client.read_until("data: ");
    const std::string data = client.read_until("\n\n");
    if (data == "[DONE]\n\n" || data.empty()) break;
    const nlohmann::json frame = nlohmann::json::parse(data);
    for (const auto& choice : frame["choices"]) {
      texts[choice["index"].get<size_t>()] += choice["text"].get<std::string>();
    }
  }
  EXPECT_EQ(texts[0], FakeScheduler::text_of("Once"));
  EXPECT_EQ(texts[1], texts[0]);
  EXPECT_THAT(client.read_until("0\r\n\r\n"), EndsWith("0\r\n\r\n"));
}

TEST_F(GatewayTest, ErrorsHaveOneForm) {
  const auto expect_error = [&](const std::string& request, int status) {
    const std::string answer = ask(request);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 " + std::to_string(status) + " ")) << request;
    EXPECT_THAT(answer, HasSubstr("\r\nx-request-id: "));
    const nlohmann::json error = body_of(answer)["error"];
    EXPECT_TRUE(error["message"].is_string() && error["type"].is_string()) << answer;
    EXPECT_TRUE(error.contains("param") && error.contains("code")) << answer;
  };
  expect_error(post("/v1/completions", "{"), 400);
  expect_error(post("/v1/completions", R"({"model":"m","prompt":"x","temperature":"hot"})"), 400);
  expect_error("GET /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", 405);
  expect_error("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404);
  expect_error("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413);
  expect_error("nonsense\r\n\r\n", 400);
}

TEST_F(GatewayTest, APeerThatLeavesCancelsItsJobs) {
  faults.stalled = true;
  for (const char* stream : {"false", "true"}) {
    TestClient client(gateway->port());
    client.write(post("/v1/completions", kBody + R"(,"stream":)" + stream + "}"));
    ASSERT_TRUE(wait_for([&] { return running() == 1; })) << stream;
    client.close();
    EXPECT_TRUE(wait_for([&] { return running() == 0; })) << stream;
  }
}

TEST_F(GatewayTest, JobsAreQueuedFollowedAndCancelled) {
  const std::string submitted = ask(post("/v1/jobs", R"({"model":"m","prompt":"Once"})"));
  ASSERT_THAT(submitted, StartsWith("HTTP/1.1 202 Accepted\r\n"));
  const std::string job = "/v1/jobs/" + body_of(submitted)["job"].get<std::string>();
  const std::string text = FakeScheduler::text_of("Once");
  // All events, then those from a byte in the middle on.
  for (const size_t from : {size_t{0}, size_t{32}}) {
    TestClient client(gateway->port());
    client.write("GET " + job + "/events HTTP/1.1\r\nHost: x\r\n" +
                 (from == 0 ? "" : "Last-Event-ID: " + std::to_string(from) + "\r\n") + "\r\n");
    const std::string all = client.read_until("\r\n0\r\n\r\n");
    EXPECT_THAT(all, AllOf(HasSubstr("event: text\n"), HasSubstr("event: finished\n")));
    std::string streamed;
    for (size_t at = 0; (at = all.find("event: text\n", at)) != std::string::npos; ++at) {
      const size_t data = all.find("data: ", at) + 6;
      streamed += nlohmann::json::parse(all.substr(data, all.find('\n', data) - data))["text"].get<std::string>();
    }
    EXPECT_EQ(streamed, text.substr(from));
  }
  const std::string get = " HTTP/1.1\r\nHost: x\r\n\r\n";
  EXPECT_EQ(body_of(ask("GET " + job + get))["state"], "succeeded");
  EXPECT_EQ(body_of(ask("GET " + job + "/result" + get))["text"], text);
  EXPECT_EQ(body_of(ask("GET /v1/jobs?limit=5" + get))["jobs"].size(), 1u);
  EXPECT_THAT(ask("GET /v1/queue" + get), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(ask("GET /v1/groups/none" + get), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(ask("GET /v1/jobs/" + std::string(32, '0') + get), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(ask("GET /v1/jobs/xyz" + get), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(ask("GET /v1/jobs/" + std::string(32, '0') + "/events" + get), testing::HasSubstr("\"error\""));
  faults.stalled = true;
  const std::string other = body_of(ask(post("/v1/jobs", R"({"model":"m","prompt":"Twice"})")))["job"];
  EXPECT_THAT(ask("GET /v1/jobs/" + other + "/result" + get), StartsWith("HTTP/1.1 202"));
  EXPECT_EQ(body_of(ask(post("/v1/jobs/" + other + "/cancel", "")))["state"], "cancelled");
}

TEST_F(GatewayTest, AnEventStreamThatIsLeftLeavesTheJob) {
  faults.stalled = true;
  const std::string job = body_of(ask(post("/v1/jobs", R"({"model":"m","prompt":"Once"})")))["job"];
  {
    TestClient client(gateway->port());
    client.write("GET /v1/jobs/" + job + "/events HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("text/event-stream"));
  }
  EXPECT_TRUE(wait_for([&] { return registry.text().find("optserve_http_streams 0") != std::string::npos; }));
  EXPECT_EQ(running(), 1u);
}

TEST_F(GatewayTest, ASilentStreamIsKeptAlive) {
  faults.stalled = true;
  TestClient client(gateway->port());
  client.write(post("/v1/completions", kBody + R"(,"stream":true})"));
  client.read_until("\r\n\r\n");
  clock.advance(seconds(15));
  EXPECT_EQ(client.read_until("\r\n: keep-alive\n\n"), "e\r\n: keep-alive\n\n");
  EXPECT_EQ(running(), 1u);
}

TEST_F(GatewayTest, AJobInTheBackgroundGoesOnAlone) {
  faults.stalled = true;
  const std::string answer = ask(post("/v1/completions", kBody + R"(,"background":true})"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 202 Accepted\r\n"));
  EXPECT_EQ(running(), 1u);
}

TEST_F(GatewayTest, EqualIdempotencyKeysAreOneJob) {
  const std::string request = post("/v1/completions", kBody + "}", "Idempotency-Key: once\r\n");
  const std::string first = ask(request);
  EXPECT_THAT(first, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_EQ(body_of(ask(request))["choices"], body_of(first)["choices"]);
  scheduler.stop();
  EXPECT_EQ(scheduler.jobs.size(), 1u);
}

TEST_F(GatewayTest, APeerThatLeavesBeforeItsJobsAreAcceptedCancelsThem) {
  faults.stalled = true;
  faults.drop_submit_replies = 1;  // the client library asks again
  TestClient client(gateway->port());
  client.write(post("/v1/completions", kBody + "}"));
  ASSERT_TRUE(wait_for([&] { return running() == 1; }));
  client.close();
  EXPECT_TRUE(wait_for([&] { return running() == 0; }));
}

TEST_F(GatewayTest, OneOfTwoRequestsForTheSameJobMayLeave) {
  faults.stalled = true;
  const std::string request = post("/v1/completions", kBody + R"(,"stream":true})", "Idempotency-Key: shared\r\n");
  TestClient first(gateway->port());
  first.write(request);
  first.read_until("\r\n\r\n");
  {
    TestClient second(gateway->port());
    second.write(request);
    second.read_until("\r\n\r\n");
  }
  ASSERT_TRUE(wait_for([&] { return registry.text().find("optserve_http_streams 1") != std::string::npos; }));
  EXPECT_EQ(running(), 1u);
  faults.stalled = false;
  EXPECT_THAT(first.read_until("[DONE]\n\n"), HasSubstr("\"finish_reason\":\"stop\""));
}

TEST_F(GatewayTest, ModelsAreThoseOfTheWorkers) {
  ASSERT_TRUE(wait_for([&] { return health.ready.load(); }));
  const nlohmann::json list = body_of(ask("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"));
  ASSERT_EQ(list["data"].size(), 1u) << list;
  EXPECT_EQ(list["data"][0]["id"], "m");
  EXPECT_EQ(body_of(ask("GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n"))["id"], "m");
  EXPECT_THAT(ask("GET /v1/models/other HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(ask(post("/v1/completions", R"({"model":"other","prompt":"x"})")), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(ask("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 200"));
}

TEST_F(GatewayTest, ARecordOfAJobHasItsResultAndItsRowOfTheList) {
  const std::string job = body_of(ask(post("/v1/jobs", R"({"model":"m","prompt":"Once","key":"k"})")))["job"];
  TestClient client(gateway->port());
  client.write("GET /v1/jobs/" + job + "/events HTTP/1.1\r\nHost: x\r\n\r\n");
  client.read_until("event: finished\n");
  const std::string path = "GET /v1/jobs/" + job + "/record HTTP/1.1\r\nHost: x\r\n\r\n";
  const nlohmann::json record = body_of(ask(path));
  EXPECT_TRUE(record["model"].is_string());
  EXPECT_EQ(record["text"], FakeScheduler::text_of("Once"));
  EXPECT_TRUE(record["accepted_ms"].is_number());
  EXPECT_FALSE(record.contains("token_texts"));  // this gateway has no folder of the model
  for (const std::string& unknown : {std::string(32, '0'), std::string("xyz")}) {
    EXPECT_THAT(ask("GET /v1/jobs/" + unknown + "/record HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 404"));
  }
}

TEST_F(GatewayTest, ATraceGoesWithTheJobsAndComesBack) {
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const std::string get = " HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string answer =
      ask(post("/v1/jobs", R"({"model":"m","prompt":"Once"})", "traceparent: " + trace + "\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\ntraceparent: " + trace + "\r\n"));
  const std::string job = body_of(answer)["job"];
  EXPECT_EQ(body_of(ask("GET /v1/jobs/" + job + get))["traceparent"], trace);
  EXPECT_THAT(ask(post("/v1/completions", kBody + "}", "traceparent: cc" + trace.substr(2) + "-more\r\n")),
              HasSubstr("\r\ntraceparent: " + trace + "\r\n"));
  EXPECT_THAT(ask(post("/v1/completions", kBody + "}", "traceparent: nonsense\r\n")),
              AllOf(StartsWith("HTTP/1.1 200"), ::testing::Not(HasSubstr("traceparent"))));
  EXPECT_THAT(ask("GET /version HTTP/1.1\r\nHost: x\r\ntraceparent: " + trace + "\r\n\r\n"), HasSubstr(trace));
}

TEST_F(GatewayTest, AQueueWithoutASchedulerIsToldSoon) {
  const std::string get = "GET /v1/queue HTTP/1.1\r\nHost: x\r\n\r\n";
  EXPECT_THAT(ask(get), StartsWith("HTTP/1.1 200"));
  faults.mute = true;
  const Instant begin = SystemClock().now();
  const std::string answer = ask(get);
  EXPECT_LT(SystemClock().now() - begin, seconds(6));  // of the client library's usual ten
  EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("\r\nRetry-After: ")));
  EXPECT_EQ(body_of(answer)["error"]["code"], "service_unavailable");
  EXPECT_EQ(body_of(answer)["schedulers"][0]["endpoint"], scheduler.endpoint());
}

TEST_F(GatewayTest, EndedJobsAreDeletedAndOpenOnesAreNot) {
  const auto remove = [&](const std::string& path) { return ask("DELETE " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"); };
  EXPECT_THAT(remove("/v1/jobs"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(remove("/v1/jobs?state=running"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(remove("/v1/jobs?model=m&limit=3"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(remove("/v1/jobs/" + std::string(32, '0')), StartsWith("HTTP/1.1 404"));
  faults.stalled = true;
  const std::string open = body_of(ask(post("/v1/jobs", R"({"model":"m","prompt":"Once","group":"g"})")))["job"];
  EXPECT_THAT(remove("/v1/jobs/" + open), AllOf(StartsWith("HTTP/1.1 409"), HasSubstr("x-should-retry: false")));
  EXPECT_EQ(body_of(remove("/v1/jobs?group=g"))["deleted"], 0);
  ask(post("/v1/jobs/" + open + "/cancel", ""));
  EXPECT_EQ(body_of(remove("/v1/jobs/" + open))["deleted"], true);
  scheduler.stop();
  EXPECT_EQ(scheduler.jobs.size(), 0u);
}

TEST_F(GatewayTest, ServesThePage) {
  const auto get = [&](const std::string& path, const std::string& fields = "") {
    return ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n");
  };
  EXPECT_THAT(get("/ui"), AllOf(StartsWith("HTTP/1.1 308"), HasSubstr("\r\nLocation: ui/\r\n")));
  const std::string page = get("/ui/");
  EXPECT_THAT(page, AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\r\nContent-Type: text/html; charset=utf-8\r\n"),
                          HasSubstr("\r\nContent-Security-Policy: default-src 'none'; script-src 'self';"),
                          HasSubstr("<!doctype html>")));
  EXPECT_THAT(get("/ui/main.js"), HasSubstr("\r\nContent-Type: text/javascript; charset=utf-8\r\n"));
  const size_t begin = page.find("ETag: ") + 6;
  const std::string etag = page.substr(begin, page.find("\r\n", begin) - begin);
  EXPECT_THAT(get("/ui/", "If-None-Match: W/" + etag + "\r\n"),
              AllOf(StartsWith("HTTP/1.1 304"), EndsWith("\r\n\r\n")));
  EXPECT_THAT(get("/ui/main.js", "If-None-Match: " + etag + "\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(get("/ui/nothing.js"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(get("/ui/..%2fmain.cc"), StartsWith("HTTP/1.1 404"));
}

TEST_F(GatewayTest, BrowsersOfOneOriginMayUseIt) {
  const std::string preflight =
      "OPTIONS /v1/completions HTTP/1.1\r\nHost: x\r\nAccess-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: authorization\r\nOrigin: https://";
  EXPECT_THAT(ask(preflight + "page.example\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 204"), HasSubstr("\r\nAccess-Control-Allow-Origin: https://page.example\r\n"),
                    HasSubstr("\r\nAccess-Control-Allow-Headers: authorization\r\n")));
  EXPECT_THAT(ask(preflight + "other.example\r\n\r\n"), ::testing::Not(HasSubstr("Access-Control-Allow")));
  EXPECT_THAT(ask("GET /version HTTP/1.1\r\nHost: x\r\nOrigin: https://page.example\r\n\r\n"),
              HasSubstr("\r\nAccess-Control-Allow-Origin: https://page.example\r\n"));
}

TEST_F(GatewayTest, ADrainLetsAnswersEndAndRefusesTheRest) {
  faults.stalled = true;
  TestClient ends(gateway->port()), stays(gateway->port());
  ends.write(post("/v1/completions", kBody + R"(,"stream":true})"));
  stays.write(post("/v1/completions", kBody + "}"));
  ASSERT_TRUE(wait_for([&] { return running() == 2; }));
  ends.read_until("\r\n\r\n");
  gateway->drain(seconds(1'000), [] { return true; });  // as after a second signal
  EXPECT_THAT(ends.read_all(), AllOf(HasSubstr("\"error\""), HasSubstr("data: [DONE]\n\n"), EndsWith("0\r\n\r\n")));
  EXPECT_THAT(stays.read_all(), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("\r\nRetry-After: ")));
  EXPECT_EQ(running(), 0u);
}

TEST_F(GatewayTest, AnEndWithoutADrainIsClean) {
  faults.stalled = true;
  TestClient client(gateway->port());
  client.write(post("/v1/completions", kBody + R"(,"stream":true})"));
  client.read_until("\r\n\r\n");
  gateway.reset();
  EXPECT_EQ(client.read_all(), "");
}

TEST(ListenAddress, HasAnAddressAndAPort) {
  EXPECT_EQ(parse_listen_address("127.0.0.1:80").value().port, 80);
  EXPECT_EQ(parse_listen_address("[::1]:8000").value().address, "::1");
  for (const char* wrong : {"", "8000", ":8000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536"}) {
    EXPECT_FALSE(parse_listen_address(wrong).ok()) << wrong;
  }
}

}  // namespace gateway_test
}  // namespace optserve::gateway
