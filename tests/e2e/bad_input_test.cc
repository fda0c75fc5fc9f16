// Each bad input gets a clear error that names what was expected and found, and the next good request works.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <limits>
#include <random>

#include "demo_stack.h"
#include "support/demo_model.h"

namespace optserve::test_support {
namespace bad_input_test {

using protocol::JobState;
using ::testing::HasSubstr;

struct BadJob {
  std::string name;
  std::function<void(protocol::JobSpec&)> spoil;
  ErrorCode code;
  std::string expected;  // part of the message
};

std::vector<BadJob> bad_jobs() {
  return {
      {"model", [](auto& job) { job.model = "opt-9000b"; }, ErrorCode::kUnknownModel, "demo"},
      {"empty prompt", [](auto& job) { job.prompt.clear(); }, ErrorCode::kBadRequest, "prompt"},
      {"both prompts",
       [](auto& job) {
         job.prompt_ids = {2, 5};
       },
       ErrorCode::kBadRequest, "both"},
      {"long prompt", [](auto& job) { job.prompt = std::string(65'537, 'a'); }, ErrorCode::kPromptTooLong, "65536"},
      {"id",
       [](auto& job) {
         job.prompt.clear(), job.prompt_ids = {2, 4096};
       },
       ErrorCode::kBadRequest, "4096"},
      {"temperature", [](auto& job) { job.sampling.temperature = 2.5f; }, ErrorCode::kBadRequest, "temperature"},
      {"top_p", [](auto& job) { job.sampling.top_p = 0; }, ErrorCode::kBadRequest, "top_p"},
      {"top_k", [](auto& job) { job.sampling.top_k = -1; }, ErrorCode::kBadRequest, "top_k"},
      {"max_new_tokens", [](auto& job) { job.max_new_tokens = 0; }, ErrorCode::kBadRequest, "max_new_tokens"},
      {"key", [](auto& job) { job.key = "no spaces"; }, ErrorCode::kBadRequest, "key"},
      {"stop", [](auto& job) { job.stop = {""}; }, ErrorCode::kBadRequest, "stop"},
      {"priority", [](auto& job) { job.priority = 10; }, ErrorCode::kBadRequest, "priority"},
  };
}

class BadInput : public DemoStackTest {
 protected:
  void expect_service() {
    const auto result = stack_->client()->generate(greedy_job(demo_goldens().cases.front()));
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().text, demo_goldens().cases.front().greedy_text);
  }
};

TEST_F(BadInput, IsRefusedByNameBeforeAnythingIsQueued) {
  const auto client = stack_->client();
  for (const BadJob& bad : bad_jobs()) {
    SCOPED_TRACE(bad.name);
    protocol::JobSpec job = greedy_job(demo_goldens().cases.front());
    bad.spoil(job);
    const auto outcomes = client->submit({job});
    ASSERT_TRUE(outcomes.ok()) << outcomes.refusal().message;
    EXPECT_FALSE(outcomes.value()[0].job);
    EXPECT_EQ(outcomes.value()[0].error, bad.code) << outcomes.value()[0].message;
    EXPECT_THAT(outcomes.value()[0].message, HasSubstr(bad.expected));
  }
  expect_service();
}

TEST_F(BadInput, APromptThatDoesNotFitFailsWithTheNumbersAndIsNeverCut) {
  const auto client = stack_->client();
  protocol::JobSpec job = greedy_job(demo_goldens().cases.front());
  for (int i = 0; i < 1100; ++i) job.prompt += " there";
  const auto result = client->generate(job);
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  EXPECT_EQ(result.value().state, JobState::kFailed);
  EXPECT_EQ(result.value().error, ErrorCode::kPromptTooLong);
  EXPECT_THAT(result.value().message, HasSubstr("1024"));
  expect_service();
}

TEST_F(BadInput, NotANumberAndInvalidTextAreRefused) {
  const auto client = stack_->client();
  protocol::JobSpec job = greedy_job(demo_goldens().cases.front());
  job.sampling.temperature = std::numeric_limits<float>::quiet_NaN();
  auto outcome = client->submit({job});
  EXPECT_TRUE(!outcome.ok() || outcome.value()[0].error == ErrorCode::kBadRequest);
  job = greedy_job(demo_goldens().cases.front());
  job.prompt = "caf\xe9 au lait";
  outcome = client->submit({job});
  ASSERT_TRUE(!outcome.ok() || outcome.value()[0].error);
  EXPECT_THAT(outcome.ok() ? outcome.value()[0].message : outcome.refusal().message, HasSubstr("UTF-8"));
  expect_service();
}

// Bytes that are not ZMTP, half a handshake, and floods of both: the connection ends, the service goes on.
TEST_F(BadInput, GarbageOnTheSocketDoesNotDisturbOthers) {
  std::mt19937_64 random(20'261'122);
  for (int round = 0; round < 50; ++round) {
    const int socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_GE(socket_fd, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(stack_->client_port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(socket_fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    std::string bytes(static_cast<size_t>(random() % 5000), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    if (round % 2 == 0) bytes.insert(0, std::string("\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL", 16));
    [[maybe_unused]] const ssize_t sent = send(socket_fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    close(socket_fd);
  }
  expect_service();
}

TEST_F(BadInput, UnknownJobsAreNotFound) {
  const auto client = stack_->client();
  const auto result = client->get(JobId::random());
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.refusal().code, ErrorCode::kNotFound);
  expect_service();
}

}  // namespace bad_input_test
}  // namespace optserve::test_support
