// API keys in front of a whole local system: who may do what, and that no key is found where it does not belong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "demo_stack.h"
#include "http/http_test_client.h"
#include "support/processes.h"

namespace optserve::test_support {
namespace http_access_test {

using http::TestClient;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct NewKey {
  std::string secret, line;
};

NewKey new_key(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "new-key");
  const ProgramOutput made = run_program("optserve-gateway", arguments);
  EXPECT_EQ(made.status, 0) << made.err;
  const size_t at = made.err.find("osk-");
  return {at == std::string::npos ? "" : made.err.substr(at, 68), made.out};
}

class HttpAccess : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    alice_ = new_key({"alice-1", "--tenant", "alice"});
    bob_ = new_key({"bob-1", "--tenant", "bob", "--jobs-max", "2"});
    hasty_ = new_key({"hasty-1", "--requests-per-minute", "1"});
    boss_ = new_key({"boss-1", "--operate"});
    write_keys(alice_.line + bob_.line + hasty_.line + boss_.line);
    stack_ = std::make_unique<DemoStack>(StackOptions{.gateways = 1, .gateway_arguments = {"--keys=" + file()}});
    stack_->wait_ready();
  }
  static void TearDownTestSuite() {
    EXPECT_TRUE(stack_->shut_down());
    stack_.reset();
    folder_.reset();
  }
  static std::string file() { return *folder_ / "keys.jsonl"; }
  static void write_keys(const std::string& lines) {
    std::ofstream(file() + ".new") << lines;
    ASSERT_EQ(chmod((file() + ".new").c_str(), 0600), 0);
    std::filesystem::rename(file() + ".new", file());
  }
  static std::string ask(const std::string& route, const std::string& secret, const json& body = nullptr) {
    const std::string text = body.is_null() ? "" : body.dump();
    TestClient client(stack_->gateway_port());
    client.write(route + " HTTP/1.1\r\nHost: x\r\n" +
                 (secret.empty() ? "" : "Authorization: Bearer " + secret + "\r\n") +
                 "Content-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text);
    return client.read_answer();
  }
  static int status(const std::string& answer) { return answer.size() < 12 ? 0 : std::stoi(answer.substr(9, 3)); }
  static json body_of(const std::string& answer) { return json::parse(answer.substr(answer.find("\r\n\r\n") + 4)); }
  static json job(const json& more = json::object()) {
    json body{{"model", "demo"}, {"prompt", "Once"}, {"max_new_tokens", 8}};
    body.update(more);
    return body;
  }

  inline static std::unique_ptr<TemporaryFolder> folder_;
  inline static std::unique_ptr<DemoStack> stack_;
  inline static NewKey alice_, bob_, hasty_, boss_;
};

TEST_F(HttpAccess, WithoutAKeyOnlyHealthIsTold) {
  for (const char* path : {"/health", "/livez", "/readyz", "/version", "/metrics"}) {
    EXPECT_EQ(status(ask(std::string("GET ") + path, "")), 200) << path;
  }
  for (const std::string& wrong : {std::string(), alice_.secret + "0", std::string("short")}) {
    const std::string answer = ask("GET /v1/models", wrong);
    EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 401"), HasSubstr("\r\nWWW-Authenticate: Bearer\r\n")));
    EXPECT_EQ(body_of(answer)["error"]["code"], "invalid_api_key");
  }
  EXPECT_EQ(status(ask("POST /v1/jobs", "", job())), 401);
  EXPECT_EQ(status(ask("GET /v1/models", alice_.secret)), 200);
}

TEST_F(HttpAccess, JobsBelongToTheKeysTenant) {
  const json made = body_of(ask("POST /v1/jobs", alice_.secret, job({{"group", "g"}})));
  const std::string path = "/v1/jobs/" + made["job"].get<std::string>();
  EXPECT_EQ(body_of(ask("GET " + path, alice_.secret))["tenant"], "alice");
  for (const std::string& route :
       {"GET " + path, "GET " + path + "/result", "GET " + path + "/events", "POST " + path + "/cancel"}) {
    const std::string hidden = ask(route, bob_.secret);
    EXPECT_EQ(status(hidden), 404) << route << "\n" << hidden;
    EXPECT_EQ(body_of(hidden)["error"]["code"], "not_found");
  }
  // A job that does not exist is answered in the same words.
  const std::string none(32, '0');
  std::string message = body_of(ask("GET " + path, bob_.secret))["error"]["message"];
  message.replace(message.find(made["job"]), none.size(), none);
  EXPECT_EQ(body_of(ask("GET /v1/jobs/" + none, bob_.secret))["error"]["message"], message);
  EXPECT_EQ(status(ask("GET " + path, boss_.secret)), 200);
  EXPECT_EQ(body_of(ask("GET /v1/jobs", bob_.secret))["jobs"].size(), 0u);
  EXPECT_EQ(body_of(ask("GET /v1/jobs", alice_.secret))["jobs"].size(), 1u);
  EXPECT_EQ(body_of(ask("GET /v1/jobs?tenant=alice", boss_.secret))["jobs"].size(), 1u);
  EXPECT_EQ(status(ask("GET /v1/jobs?tenant=alice", bob_.secret)), 403);
  EXPECT_EQ(status(ask("GET /v1/groups/g?tenant=alice", bob_.secret)), 403);
  EXPECT_EQ(status(ask("POST /v1/groups/g/cancel?tenant=alice", bob_.secret)), 403);
  EXPECT_EQ(body_of(ask("GET /v1/groups/g", alice_.secret))["tenant"], "alice");
  EXPECT_EQ(status(ask("POST /v1/jobs", bob_.secret, job({{"tenant", "alice"}}))), 403);
  EXPECT_EQ(status(ask("POST " + path + "/cancel", alice_.secret)), 200);
  const json completion{{"model", "demo"}, {"prompt", "Once"}, {"user", "bob"}, {"background", true}};
  const json queued = body_of(ask("POST /v1/completions", alice_.secret, completion));
  EXPECT_THAT(body_of(ask("GET /v1/jobs", alice_.secret))["jobs"].size(), 2u) << queued;
}

TEST_F(HttpAccess, OperatingNeedsItsRight) {
  const json pause{{"action", "pause"}}, resume{{"action", "resume"}};
  EXPECT_EQ(status(ask("POST /v1/queue", alice_.secret, pause)), 403);
  EXPECT_EQ(status(ask("POST /v1/jobs/" + std::string(32, '0') + "/requeue", alice_.secret)), 403);
  const json convert{{"convert", {{"source", "/in"}, {"destination", "/out"}, {"dtype", "keep"}}}};
  EXPECT_EQ(status(ask("POST /v1/jobs", alice_.secret, convert)), 403);
  EXPECT_EQ(status(ask("POST /v1/queue", boss_.secret, pause)), 200);
  EXPECT_EQ(status(ask("POST /v1/queue", boss_.secret, resume)), 200);
}

TEST_F(HttpAccess, RequestsAndOpenJobsAreBounded) {
  EXPECT_EQ(status(ask("GET /v1/models", hasty_.secret)), 200);
  const std::string soon = ask("GET /v1/models", hasty_.secret);
  EXPECT_THAT(soon, AllOf(StartsWith("HTTP/1.1 429"), HasSubstr("\r\nRetry-After: ")));
  ASSERT_EQ(status(ask("POST /v1/queue", boss_.secret, {{"action", "pause"}})), 200);
  EXPECT_EQ(status(ask("POST /v1/jobs", bob_.secret, {{"jobs", {job(), job(), job()}}})), 400);
  EXPECT_EQ(status(ask("POST /v1/jobs", bob_.secret, {{"jobs", {job(), job()}}})), 202);
  EXPECT_EQ(status(ask("POST /v1/completions", bob_.secret, {{"model", "demo"}, {"prompt", "x"}})), 429);
  ASSERT_EQ(status(ask("POST /v1/queue", boss_.secret, {{"action", "resume"}})), 200);
  EXPECT_TRUE(wait_for([] { return status(ask("POST /v1/jobs", bob_.secret, job())) == 202; }, seconds(8)));
}

TEST_F(HttpAccess, KeysAreRotatedWithoutARestart) {
  const std::string all = alice_.line + bob_.line + hasty_.line + boss_.line;
  const NewKey second = new_key({"alice-2", "--tenant", "alice"});
  const auto answers = [](const std::string& secret, int expected) {
    return wait_for([&] { return status(ask("GET /v1/models", secret)) == expected; }, seconds(8));
  };
  write_keys(all + second.line);
  EXPECT_TRUE(answers(second.secret, 200));
  EXPECT_EQ(status(ask("GET /v1/models", alice_.secret)), 200);
  write_keys(all + "{broken\n");
  EXPECT_TRUE(wait_for([] { return stack_->logs().find("keys_not_read") != std::string::npos; }, seconds(8)));
  EXPECT_EQ(status(ask("GET /v1/models", second.secret)), 200);
  write_keys(all);
  EXPECT_TRUE(answers(second.secret, 401));
}

// This test is the last: everything that the other tests did is in the logs.
TEST_F(HttpAccess, NoKeyIsInLogsErrorsOrMetrics) {
  const std::string unknown = "osk-" + std::string(60, '7') + "feed";
  std::string told = ask("GET /v1/models", unknown) + ask("GET /v1/nothing", alice_.secret) +
                     ask("POST /v1/queue", alice_.secret, {{"action", "pause"}}) + ask("GET /metrics", boss_.secret);
  EXPECT_TRUE(wait_for([] { return stack_->logs().find("path=/v1/nothing") != std::string::npos; }, seconds(8)));
  told += stack_->logs();
  for (const std::string& secret : {unknown, alice_.secret, bob_.secret, hasty_.secret, boss_.secret}) {
    ASSERT_EQ(secret.size(), 68u);
    EXPECT_EQ(told.find(secret.substr(4)), std::string::npos);
  }
  EXPECT_THAT(told, HasSubstr("key=alice-1 tenant=alice"));
}

TEST(HttpAccessStart, OtherMachinesAreServedOnlyWithKeys) {
  const ProgramOutput open = run_program("optserve-gateway", {"--http", "0.0.0.0:0"});
  EXPECT_EQ(open.status, 78);
  EXPECT_THAT(open.err, AllOf(HasSubstr("optserve-gateway new-key"), HasSubstr("--insecure")));
  EXPECT_EQ(run_program("optserve-gateway", {"--http", "[::]:0"}).status, 78);
  EXPECT_EQ(run_program("optserve-gateway", {"--keys", "/nowhere"}).status, 78);
}

TEST(HttpAccessStart, LinesOfTheEnvironmentAreNotLogged) {
  setenv("OPTSERVE_GATEWAY_KEY_LINES", "osk-planted-by-mistake", 1);
  const ProgramOutput wrong = run_program("optserve-gateway", {});
  unsetenv("OPTSERVE_GATEWAY_KEY_LINES");
  EXPECT_EQ(wrong.status, 78);
  EXPECT_THAT(wrong.err, AllOf(HasSubstr("key-lines: line 1: "), Not(HasSubstr("planted"))));
}

}  // namespace http_access_test
}  // namespace optserve::test_support
