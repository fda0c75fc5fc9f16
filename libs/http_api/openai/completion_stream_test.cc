#include "http_api/openai/completion_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "http_api/openai/completion_answer.h"
#include "http_api/openai/request_fixture.h"

namespace optserve::http_api {
namespace completion_stream_test {

using nlohmann::json;
using protocol::JobResult;
using protocol::JobSpec;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// What a client reads from the frames, by the rules that the strictest parsers share.
struct Reader {
  std::vector<json> chunks;
  std::map<int, std::string> texts;
  std::map<int, json> last;  // the choice that has a finish_reason
  json usage;
  bool done = false;

  void read(const std::string& frames) {
    size_t at = 0;
    while (at < frames.size()) {
      const size_t end = frames.find("\n\n", at);
      ASSERT_NE(end, std::string::npos) << "half a frame: " << frames.substr(at);
      const std::string frame = frames.substr(at, end - at);
      at = end + 2;
      ASSERT_FALSE(done) << "after [DONE]: " << frame;
      ASSERT_THAT(frame, StartsWith("data: "));
      ASSERT_EQ(frame.find('\n'), std::string::npos) << "one line is one frame";
      if (frame == "data: [DONE]") {
        done = true;
        continue;
      }
      read_chunk(json::parse(frame.substr(6)));
    }
  }
  void read_chunk(const json& chunk) {
    chunks.push_back(chunk);
    EXPECT_EQ(chunk["object"], "text_completion");
    if (chunk["choices"].empty()) usage = chunk["usage"];
    for (const json& choice : chunk["choices"]) {
      const int index = choice["index"];
      EXPECT_FALSE(last.contains(index)) << "after the finish_reason";
      texts[index] += choice["text"].get<std::string>();
      if (!choice["finish_reason"].is_null()) last[index] = choice;
    }
  }
};

class CompletionStreamTest : public RequestTest {
 protected:
  CompletionRequest request(const json& changes) const { return completion(with({{"stream", true}}, changes)); }
  JobResult result(const CompletionRequest& asked, size_t job, const std::string& text) {
    return test_result(asked, asked.jobs()[job], ids_of(text), story());
  }
};

TEST_F(CompletionStreamTest, FramesAreTextsThenTheFinishReasonThenDone) {
  const CompletionRequest asked = request({});
  CompletionStream stream(asked);
  EXPECT_EQ(stream.on_start(), "");
  EXPECT_EQ(stream.on_text(0, "on"),
            R"(data: {"id":"cmpl-r1","object":"text_completion","created":1700000001,"model":"story","choices":[)"
            R"({"index":0,"text":"on","logprobs":null,"finish_reason":null}]})"
            "\n\n");
  EXPECT_FALSE(stream.is_over());
  EXPECT_EQ(stream.on_finished(0, result(asked, 0, "once")),
            R"(data: {"id":"cmpl-r1","object":"text_completion","created":1700000001,"model":"story","choices":[)"
            R"({"index":0,"text":"ce","logprobs":null,"finish_reason":"length","stop_reason":null}],)"
            R"("system_fingerprint":"fp_aaaaaaaaaaaa"})"
            "\n\ndata: [DONE]\n\n");
  EXPECT_TRUE(stream.is_over());
  EXPECT_FALSE(stream.has_failed());
  EXPECT_EQ(stream.on_text(0, "late"), "");
}

TEST_F(CompletionStreamTest, UsageComesOnlyWhereItIsAskedForInAChunkWithoutChoices) {
  Reader without, with;
  const CompletionRequest plain = request({});
  without.read(CompletionStream(plain).on_finished(0, result(plain, 0, "once")));
  EXPECT_EQ(without.usage, nullptr);
  const CompletionRequest asked =
      request({{"stream_options", {{"include_usage", true}}}, {"n", 2}, {"return_metrics", true}});
  CompletionStream stream(asked);
  with.read(stream.on_finished(1, result(asked, 1, "once")));
  EXPECT_EQ(with.usage, nullptr);
  with.read(stream.on_finished(0, result(asked, 0, "once")));
  EXPECT_EQ(with.usage, json::parse(R"({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})"));
  EXPECT_FALSE(with.chunks.back().contains("metrics")) << "of one choice only";
  EXPECT_TRUE(with.done);
}

TEST_F(CompletionStreamTest, EchoComesFirst) {
  const CompletionRequest asked = request({{"echo", true}, {"prompt", {"a", "b"}}});
  CompletionStream stream(asked);
  Reader reader;
  reader.read(stream.on_start());
  EXPECT_EQ(reader.texts[0], "a");
  EXPECT_EQ(reader.texts[1], "b");
  reader.read(stream.on_finished(1, result(asked, 1, "y")));
  reader.read(stream.on_finished(0, result(asked, 0, "x")));
  EXPECT_EQ(reader.texts[0], "ax");
  EXPECT_EQ(reader.texts[1], "by");
}

TEST_F(CompletionStreamTest, LogprobsComeWithTheWholeTextAtTheEnd) {
  const CompletionRequest asked = request({{"logprobs", 1}, {"echo", true}});
  CompletionStream stream(asked);
  EXPECT_EQ(stream.on_start(), "");
  EXPECT_EQ(stream.on_text(0, "on"), "");
  Reader reader;
  reader.read(stream.on_finished(0, result(asked, 0, "once")));
  EXPECT_EQ(reader.texts[0], "the endonce");
  EXPECT_EQ(reader.last[0]["logprobs"]["tokens"].size(), 4u);
}

TEST_F(CompletionStreamTest, AFailureIsAnErrorFrameAndThenDone) {
  const CompletionRequest asked = request({{"n", 2}});
  for (int way = 0; way < 3; ++way) {
    CompletionStream stream(asked);
    stream.on_text(0, "on");
    JobResult dead = result(asked, 1, "");
    dead.state = protocol::JobState::kDead;
    const std::string frames = way == 0   ? stream.on_finished(1, dead)
                               : way == 1 ? stream.on_lost(1, refuse(ErrorCode::kUnavailable, "no scheduler"))
                                          : stream.on_error(unavailable("the gateway stops"));
    // `event: error` is what makes every client's parser see the failure.
    EXPECT_THAT(frames, StartsWith("event: error\ndata: {\"error\":{"));
    EXPECT_THAT(frames, EndsWith("\n\ndata: [DONE]\n\n"));
    EXPECT_TRUE(stream.is_over() && stream.has_failed());
    EXPECT_EQ(stream.on_finished(0, result(asked, 0, "once")), "");
    EXPECT_EQ(stream.on_error(unavailable("again")), "");
  }
}

TEST_F(CompletionStreamTest, ATextThatBeginsAgainIsAnErrorOnlyIfSomeWasSent) {
  const CompletionRequest asked = request({});
  CompletionStream nothing(asked);
  EXPECT_EQ(nothing.on_restarted(0), "");
  EXPECT_THAT(nothing.on_finished(0, result(asked, 0, "once")), HasSubstr("\"text\":\"once\""));
  CompletionStream some(asked);
  some.on_text(0, "on");
  EXPECT_THAT(some.on_restarted(0), HasSubstr("\"code\":\"stream_restarted\""));
  EXPECT_TRUE(some.has_failed());
  CompletionStream other(asked);
  other.on_text(0, "xx");
  EXPECT_THAT(other.on_finished(0, result(asked, 0, "once")), HasSubstr("stream_restarted"))
      << "a result that does not begin with what was sent";
  const CompletionRequest scored = request({{"logprobs", 0}});
  CompletionStream at_end(scored);
  at_end.on_text(0, "xx");
  EXPECT_EQ(at_end.on_restarted(0), "");
}

// For random requests and texts, cut at random, what a client puts together is the answer that is not streamed.
TEST_F(CompletionStreamTest, StreamedTextsAreThoseOfTheAnswer) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto pick = [&](size_t below) { return static_cast<size_t>(random() % below); };
  const std::string letters[] = {"a",      " the",       "\"",      "\\",   "\n",  "\u00e9",
                                 "\u20ac", "\U0001f600", "\u0000x", "</s>", "\x7f"};
  for (int round = 0; round < 300; ++round) {
    json changes{{"n", 1 + pick(3)}, {"echo", pick(2) == 0}};
    if (pick(3) == 0) changes["logprobs"] = pick(3);
    if (pick(3) == 0) changes["temperature"] = 0;
    if (pick(2) == 0) changes["prompt"] = {"a", "\u20ac", "c"};
    if (pick(2) == 0) changes["stream_options"] = {{"include_usage", true}};
    const CompletionRequest asked = request(changes);
    const std::vector<JobSpec> jobs = asked.jobs();
    CompletionStream stream(asked);
    CompletionAnswer answer(asked);
    Reader reader;
    reader.read(stream.on_start());
    std::vector<std::string> texts(jobs.size());
    std::vector<size_t> at(jobs.size(), 0);
    std::vector<size_t> open;
    for (size_t job = 0; job < jobs.size(); ++job) {
      for (size_t i = pick(8); i > 0; --i) texts[job] += letters[pick(std::size(letters))];
      open.push_back(job);
    }
    while (!open.empty()) {
      const size_t i = pick(open.size()), job = open[i];
      const std::string& text = texts[job];
      if (pick(3) > 0 && at[job] < text.size()) {
        const size_t bytes = 1 + pick(std::min<size_t>(text.size() - at[job], 4));  // also within a character
        reader.read(stream.on_text(job, text.substr(at[job], bytes)));
        at[job] += bytes;
        continue;
      }
      const JobResult ended = test_result(asked, jobs[job], ids_of(text), story());
      ASSERT_EQ(ended.text, text);
      reader.read(stream.on_finished(job, ended));  // some of its text may not have come before
      answer.add(job, ended);
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(i));
    }
    ASSERT_TRUE(reader.done);
    const json body = json::parse(answer.body());
    ASSERT_EQ(reader.texts.size(), body["choices"].size());
    for (const json& choice : body["choices"]) {
      const int index = choice["index"];
      EXPECT_EQ(reader.texts[index], choice["text"].get<std::string>()) << changes;
      json facts = reader.last[index];
      facts["text"] = choice["text"];
      EXPECT_EQ(facts, choice) << changes;
    }
    if (asked.include_usage) {
      EXPECT_EQ(reader.usage, body["usage"]);
    }
  }
}

}  // namespace completion_stream_test
}  // namespace optserve::http_api
