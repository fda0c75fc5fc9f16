// The HTTP API of a whole local system, with the bytes that clients see.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "demo_stack.h"
#include "http/http_test_client.h"

namespace optserve::test_support {
namespace http_api_test {

using http::TestClient;
using nlohmann::json;
using protocol::JobState;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string post(const json& body, const std::string& fields = "", const std::string& path = "/v1/completions") {
  const std::string text = body.dump();
  return "POST " + path + " HTTP/1.1\r\nHost: x\r\n" + fields + "Content-Length: " + std::to_string(text.size()) +
         "\r\n\r\n" + text;
}

json completion(const DemoCase& golden, bool stream) {
  return {{"model", "demo"}, {"prompt", golden.prompt}, {"max_tokens", 64}, {"temperature", 0}, {"stream", stream}};
}

json body_of(const std::string& answer) { return json::parse(answer.substr(answer.find("\r\n\r\n") + 4)); }

// The rest of a stream whose head was read: the text of choice 0, and the last frame.
struct Streamed {
  explicit Streamed(TestClient& client) {
    while (true) {
      if (!client.read_until("data: ").ends_with("data: ")) return;
      std::string data = client.read_until("\n\n");
      data.resize(data.size() - std::min<size_t>(data.size(), 2));
      if (data == "[DONE]") {
        is_done = true;
        return;
      }
      const json frame = json::parse(data, nullptr, false);
      if (frame.contains("error")) error = frame["error"];
      if (frame.contains("choices")) text += frame["choices"][0]["text"].get<std::string>();
    }
  }
  std::string text;
  json error;
  bool is_done = false;
};

class HttpApi : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    stack_ = std::make_unique<DemoStack>(StackOptions{.gateways = 1});
    stack_->wait_ready();
  }
  static void TearDownTestSuite() {
    EXPECT_TRUE(stack_->shut_down());
    stack_.reset();
  }
  static std::string ask(const std::string& request) {
    TestClient client(stack_->gateway_port());
    client.write(request);
    return client.read_answer();
  }
  static std::string get(const std::string& path) { return ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"); }
  static void control(protocol::ControlAction action) {
    const auto answers = stack_->client()->control(action, protocol::ControlScope::kQueue);
    ASSERT_TRUE(answers.at(0).answer.ok());
  }
  static size_t count_jobs(JobState state) {
    protocol::JobFilter filter;
    filter.state = state;
    return stack_->client()->list(filter, 1'000).at(0).answer.value().jobs.size();
  }

  inline static std::unique_ptr<DemoStack> stack_;
};

TEST_F(HttpApi, PlainAndStreamedTextsAreTheGoldenOnes) {
  for (const DemoCase& golden : demo_goldens().cases) {
    SCOPED_TRACE(golden.prompt);
    const std::string plain = ask(post(completion(golden, false), "x-request-id: r-1\r\n"));
    ASSERT_THAT(plain, AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("\r\nx-request-id: r-1\r\n")));
    EXPECT_EQ(body_of(plain)["choices"][0]["text"], golden.greedy_text);
    EXPECT_EQ(body_of(plain)["usage"]["prompt_tokens"], golden.prompt_ids.size());
    TestClient client(stack_->gateway_port());
    client.write(post(completion(golden, true)));
    EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("\r\nContent-Type: text/event-stream"));
    const Streamed streamed(client);
    EXPECT_TRUE(streamed.is_done);
    EXPECT_EQ(streamed.text, golden.greedy_text);
  }
}

TEST_F(HttpApi, MetaseqsClientsGetItsForm) {
  const DemoCase& golden = demo_goldens().cases[0];
  const json body{{"prompt", json::array({golden.prompt})}, {"max_tokens", 64}, {"temperature", 0}};
  for (const char* path : {"/completions", "/generate", "/engines/any/completions", "/v2/engines/any/completions"}) {
    const std::string answer = ask(post(body, "", path));
    ASSERT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n")) << path;
    EXPECT_EQ(body_of(answer)["choices"][0]["text"], golden.greedy_text);
    EXPECT_EQ(body_of(answer)["choices"][0]["logprobs"]["tokens"].size(), 64u);
  }
}

TEST_F(HttpApi, AJobIsFollowedFromAnyByte) {
  const DemoCase& golden = demo_goldens().cases[0];
  const json job{{"model", "demo"}, {"prompt", golden.prompt}, {"max_new_tokens", 64}, {"temperature", 0}};
  const std::string id = body_of(ask(post(job, "", "/v1/jobs")))["job"];
  TestClient client(stack_->gateway_port());
  client.write("GET /v1/jobs/" + id + "/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 10\r\n\r\n");
  const std::string all = client.read_until("\r\n0\r\n\r\n");
  std::string text;
  for (size_t at = 0; (at = all.find("event: text\n", at)) != std::string::npos; ++at) {
    const size_t data = all.find("data: ", at) + 6;
    text += json::parse(all.substr(data, all.find('\n', data) - data))["text"].get<std::string>();
  }
  EXPECT_EQ(text, golden.greedy_text.substr(10));
  EXPECT_EQ(body_of(get("/v1/jobs/" + id + "/result"))["text"], golden.greedy_text);
}

TEST_F(HttpApi, ErrorsAreThoseOfOpenAi) {
  const std::string unknown = ask(post({{"model", "other"}, {"prompt", "x"}}));
  EXPECT_THAT(unknown, StartsWith("HTTP/1.1 404"));
  EXPECT_EQ(body_of(unknown)["error"]["code"], "model_not_found");
  const std::string wrong = ask(post({{"model", "demo"}, {"prompt", "x"}, {"temperature", -1}}));
  EXPECT_THAT(wrong, StartsWith("HTTP/1.1 400"));
  EXPECT_EQ(body_of(wrong)["error"]["param"], "temperature");
  const std::string long_text = ask(post({{"model", "demo"}, {"prompt", "x"}, {"max_tokens", 100'000}}));
  EXPECT_THAT(long_text, StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(get("/v1/nothing"), StartsWith("HTTP/1.1 404"));
}

TEST_F(HttpApi, ModelsAndStateAreTold) {
  const json models = body_of(get("/v1/models"));
  ASSERT_EQ(models["data"].size(), 1u) << models;
  EXPECT_EQ(models["data"][0]["id"], "demo");
  EXPECT_EQ(models["data"][0]["root"], "demo");
  EXPECT_EQ(body_of(get("/v1/models/demo"))["object"], "model");
  for (const char* path : {"/health", "/livez", "/readyz", "/version"}) {
    EXPECT_THAT(get(path), StartsWith("HTTP/1.1 200")) << path;
  }
  EXPECT_THAT(get("/metrics"), HasSubstr("optserve_http_requests_total{"));
}

TEST_F(HttpApi, AClientThatLeavesCancelsItsJob) {
  control(protocol::ControlAction::kPause);
  for (const bool stream : {false, true}) {
    const size_t cancelled = count_jobs(JobState::kCancelled);
    TestClient client(stack_->gateway_port());
    client.write(post(completion(demo_goldens().cases[0], stream)));
    ASSERT_TRUE(wait_for([] { return count_jobs(JobState::kQueued) == 1; }, seconds(10)));
    client.close();
    EXPECT_TRUE(wait_for([&] { return count_jobs(JobState::kCancelled) == cancelled + 1; }, seconds(10))) << stream;
  }
  control(protocol::ControlAction::kResume);
}

TEST_F(HttpApi, AGatewayThatIsStoppedLetsItsStreamsEnd) {
  const DemoCase& golden = demo_goldens().cases[0];
  control(protocol::ControlAction::kPause);
  TestClient client(stack_->gateway_port());
  client.write(post(completion(golden, true)));
  ASSERT_THAT(client.read_until("\r\n\r\n"), StartsWith("HTTP/1.1 200 OK\r\n"));
  std::thread ending([] { EXPECT_EQ(stack_->end_gateway(0, SIGTERM), 0); });
  EXPECT_TRUE(wait_for(
      [] {
        try {
          TestClient refused(stack_->gateway_port());
        } catch (const Error&) {
          return true;
        }
        return false;
      },
      seconds(10)));
  control(protocol::ControlAction::kResume);
  const Streamed streamed(client);
  EXPECT_TRUE(streamed.is_done);
  EXPECT_EQ(streamed.text, golden.greedy_text);
  ending.join();
  stack_->start_gateway(0);
  stack_->wait_ready();
}

TEST_F(HttpApi, AKilledGatewayIsReplacedAndTheJobIsStillThere) {
  const DemoCase& golden = demo_goldens().cases[0];
  const std::string key = "Idempotency-Key: the-same\r\n";
  control(protocol::ControlAction::kPause);
  TestClient client(stack_->gateway_port());
  client.write(post(completion(golden, true), key));
  ASSERT_THAT(client.read_until("\r\n\r\n"), StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_EQ(stack_->end_gateway(0, SIGKILL), SIGKILL);
  const Streamed cut(client);
  EXPECT_FALSE(cut.is_done);
  EXPECT_THAT(client.read_all(), ::testing::Not(HasSubstr("0\r\n\r\n")));  // visibly incomplete
  EXPECT_EQ(count_jobs(JobState::kQueued), 1u);
  stack_->start_gateway(0);
  stack_->wait_ready();
  control(protocol::ControlAction::kResume);
  TestClient again(stack_->gateway_port());
  again.write(post(completion(golden, true), key));
  again.read_until("\r\n\r\n");
  const Streamed streamed(again);
  EXPECT_TRUE(streamed.is_done);
  EXPECT_EQ(streamed.text, golden.greedy_text);
  EXPECT_EQ(count_jobs(JobState::kQueued), 0u);
}

}  // namespace http_api_test
}  // namespace optserve::test_support
