#include "http_api/responses/response_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/limits.h"
#include "http_api/chat/chat_template.h"
#include "http_api/openai/completion_stream.h"
#include "http_api/openai/request_fixture.h"

namespace optserve::http_api {
namespace response_request_test {

using nlohmann::json;
using protocol::JobResult;
using protocol::JobState;

struct Event {
  std::string type;
  json data;
};
std::vector<Event> events_of(const std::string& frames) {
  std::vector<Event> events;
  for (size_t at = 0; at < frames.size();) {
    const size_t type = frames.find("event: ", at), line = frames.find('\n', type), end = frames.find("\n\n", type);
    events.push_back({frames.substr(type + 7, line - type - 7), json::parse(frames.substr(line + 7, end - line - 7))});
    at = end + 2;
  }
  return events;
}

class ResponseRequestTest : public RequestTest {
 protected:
  Parsed<ResponseRequest> parse(const json& changes) {
    const json body = with({{"model", "story"}, {"input", "the end"}, {"max_output_tokens", 8}}, changes);
    return parse_response(body.dump(), models_, context_);
  }
  ResponseRequest good(const json& changes) { return value_of(parse(changes), changes); }
  void expect_error(const json& changes, const std::string& param, const std::string& part = "") {
    expect_refused(parse(changes), changes, param, part);
  }
  static JobResult succeeded(const std::string& text) {
    JobResult result;
    result.job = kJob;
    result.state = JobState::kSucceeded;
    result.finish_reason = sampling::FinishReason::kEndOfText;
    result.text = text;
    result.ids = {5, 6, 2};
    result.prompt_tokens = 4;
    return result;
  }

  inline static const JobId kJob{{1, 2, 3}};
  ChatTemplate template_ = ChatTemplate::plain();
  RequestContext context_ = test_context();
};

TEST_F(ResponseRequestTest, TextIsContinuedOrSaidByAUser) {
  EXPECT_EQ(good({}).completion.prompts[0].text, "the end") << "there is no template";
  EXPECT_EQ(good({}).completion.job.max_new_tokens, 8);
  expect_error({{"instructions", "Be kind"}}, "instructions", "--chat-template plain");
  expect_error({{"input", {{{"role", "user"}, {"content", "a"}}}}}, "input", "--chat-template plain");
  context_.chat = &template_;
  EXPECT_EQ(good({}).completion.prompts[0].text, "User: the end\nAssistant:");
  const json messages = {{{"role", "user"}, {"content", {{{"type", "input_text"}, {"text", "a"}}}}},
                         {{"type", "message"},
                          {"id", "msg_1"},
                          {"status", "completed"},
                          {"role", "assistant"},
                          {"content", {{{"type", "output_text"}, {"text", "b"}, {"annotations", json::array()}}}}},
                         {{"role", "user"}, {"content", "c"}}};
  EXPECT_EQ(good({{"input", messages}, {"instructions", "S"}}).completion.prompts[0].text,
            "S\n\nUser: a\nAssistant: b\nUser: c\nAssistant:");
}

TEST_F(ResponseRequestTest, WrongFieldsAreNamed) {
  expect_error({{"previous_response_id", "resp_1"}}, "previous_response_id", "not supported");
  expect_error({{"tools", {1}}}, "tools", "not supported");
  expect_error({{"max_output_tokens", 0}}, "max_output_tokens");
  expect_error({{"input", nullptr}}, "input");
  expect_error({{"input", std::string(100, 'q')}}, "input", "maximum context length");
  expect_error({{"temprature", 1}}, "temprature", "did you mean 'temperature'?");
  good({{"tools", json::array()}, {"store", false}, {"metadata", {{"a", "b"}}}, {"truncation", "disabled"}});
}

TEST_F(ResponseRequestTest, TheJobTellsWhatItsResponseIs) {
  const auto facts = [this](const json& changes) {
    const protocol::JobSpec job = good(changes).completion.jobs()[0];
    EXPECT_LE(job.group.size(), limits::kGroupBytesMax);
    return facts_of_group(job.group);
  };
  EXPECT_EQ(facts({})->model, "story");
  EXPECT_EQ(facts({})->created, context_.created);
  EXPECT_FALSE(facts({})->is_background);
  EXPECT_TRUE(facts({{"background", true}})->is_background);
  const json keyed{{"idempotency_key", "k"}};
  const protocol::JobSpec first = good(keyed).completion.jobs()[0];
  context_.created += 5;
  context_.request_id = "r2";
  EXPECT_EQ(good(keyed).completion.jobs()[0], first) << "a repeated request is the same job";
  for (const char* group : {"", "resp", "resp.b.", "resp.x.1.m", "resp.b.one.m", "resp.b.1", "cmpl-1"}) {
    EXPECT_FALSE(facts_of_group(group)) << group;
  }
  EXPECT_EQ(job_of_response(response_id(kJob)), kJob);
  EXPECT_FALSE(job_of_response(kJob.hex()));
  EXPECT_FALSE(job_of_response("resp_xyz"));
}

TEST_F(ResponseRequestTest, InTheBackgroundNothingIsCancelled) {
  const ResponseRequest plain = good({}), background = good({{"background", true}}),
                        followed = good({{"background", true}, {"stream", true}});
  EXPECT_FALSE(plain.completion.keeps_running);
  EXPECT_TRUE(background.completion.background && background.completion.keeps_running);
  EXPECT_TRUE(followed.completion.stream && followed.completion.keeps_running);
  EXPECT_FALSE(followed.completion.background) << "it is followed";
  EXPECT_EQ(followed.completion.jobs()[0].on_disconnect, protocol::OnDisconnect::kContinue);
}

TEST_F(ResponseRequestTest, TheObjectSaysHowTheJobIs) {
  const ResponseFacts facts{"story", 7, true, {{"instructions", "S"}}};
  JobResult result = succeeded("abc");
  json object = response_json(facts, result);
  EXPECT_EQ(object["id"], response_id(kJob));
  EXPECT_EQ(object["status"], "completed");
  EXPECT_EQ(object["output"][0]["content"][0]["text"], "abc");
  EXPECT_EQ(object["usage"]["total_tokens"], 7);
  EXPECT_EQ(object["instructions"], "S");
  EXPECT_EQ(object["background"], true);
  result.finish_reason = sampling::FinishReason::kLength;
  object = response_json(facts, result);
  EXPECT_EQ(object["status"], "incomplete");
  EXPECT_EQ(object["incomplete_details"]["reason"], "max_output_tokens");
  const std::pair<JobState, const char*> words[] = {{JobState::kQueued, "queued"}, {JobState::kRunning, "in_progress"},
                                                    {JobState::kFailed, "failed"}, {JobState::kCancelled, "cancelled"},
                                                    {JobState::kDead, "failed"},   {JobState::kExpired, "failed"}};
  for (const auto& [state, word] : words) {
    result.state = state;
    object = response_json(facts, result);
    EXPECT_EQ(object["status"], word);
    EXPECT_TRUE(object["output"].empty());
    EXPECT_EQ(object["error"].is_null(), std::string_view(word) != "failed");
  }
}

TEST_F(ResponseRequestTest, EventsAreNumberedByTheBytesOfText) {
  ResponseEvents events({"story", 7, false, {}}, kJob);
  std::string frames = events.begin();
  frames += events.text("ab");
  frames += events.text("\u00e9");
  frames += events.end(succeeded("ab\u00e9c"));
  const std::vector<Event> all = events_of(frames);
  const std::vector<std::pair<std::string, int>> expected = {{"response.created", 0},
                                                             {"response.in_progress", 1},
                                                             {"response.output_item.added", 2},
                                                             {"response.content_part.added", 3},
                                                             {"response.output_text.delta", 5},
                                                             {"response.output_text.delta", 7},
                                                             {"response.output_text.delta", 8},
                                                             {"response.output_text.done", 9},
                                                             {"response.content_part.done", 10},
                                                             {"response.output_item.done", 11},
                                                             {"response.completed", 12}};
  ASSERT_EQ(all.size(), expected.size());
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].type, expected[i].first);
    EXPECT_EQ(all[i].data["type"], expected[i].first);
    EXPECT_EQ(all[i].data["sequence_number"], expected[i].second);
  }
  EXPECT_EQ(all[7].data["text"], "ab\u00e9c");
  EXPECT_EQ(all.back().data["response"]["status"], "completed");
}

// Resumes after any event, however the text is then cut into pieces.
TEST_F(ResponseRequestTest, AStreamGoesOnAfterAnyEvent) {
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  const std::string text = "once upon a time there was an end";
  const auto cut = [&](ResponseEvents& events, size_t from) {
    std::string frames;
    while (from < text.size()) {
      const size_t length = std::min<size_t>(1 + random() % 5, text.size() - from);
      frames += events.text(text.substr(from, length));
      from += length;
    }
    return frames;
  };
  const ResponseFacts facts{"story", 7, true, {}};
  ResponseEvents whole(facts, kJob);
  std::string whole_frames = whole.begin();
  whole_frames += cut(whole, 0);
  whole_frames += whole.end(succeeded(text));
  const std::vector<Event> all = events_of(whole_frames);
  for (size_t seen = 0; seen < all.size(); ++seen) {
    std::string got;
    for (size_t i = 0; i <= seen; ++i) got += all[i].data.value("delta", "");
    const int64_t after = all[seen].data["sequence_number"];
    const auto form = response_follow_form(facts, kJob, after);
    std::string frames = form->begin();
    const bool has_ended = random() % 2 == 0;
    const uint64_t from = ResponseEvents::bytes_before(after);
    for (uint64_t at = from; !has_ended && at < text.size(); ++at) frames += form->on_text(text.substr(at, 1));
    frames += form->on_finished(succeeded(text));
    EXPECT_TRUE(form->is_over());
    int64_t last = after;
    for (const Event& event : events_of(frames)) {
      EXPECT_GT(event.data["sequence_number"], last);
      last = event.data["sequence_number"];
      got += event.data.value("delta", "");
    }
    EXPECT_EQ(got, text) << "after event " << after;
    EXPECT_EQ(last, all.back().data["sequence_number"]);
  }
}

TEST_F(ResponseRequestTest, AJobThatFailsEndsTheStreamWithItsResponse) {
  const ResponseRequest request = good({{"stream", true}});
  CompletionStream stream(request.completion, response_form(request.facts, kJob));
  stream.on_start();
  JobResult failed = succeeded("a");
  failed.state = JobState::kDead;
  std::string frames = stream.on_text(0, "a");
  frames += stream.on_finished(0, failed);
  const std::vector<Event> events = events_of(frames);
  EXPECT_TRUE(stream.is_over() && stream.has_failed());
  EXPECT_EQ(events.back().type, "response.failed");
  EXPECT_EQ(events.back().data["response"]["error"]["code"], "server_error");
  CompletionStream other(request.completion, response_form(request.facts, kJob));
  other.on_start();
  const std::vector<Event> lost = events_of(other.on_error(unavailable("gone")));
  EXPECT_EQ(lost.back().type, "error");
  EXPECT_EQ(lost.back().data["message"], "gone");
}

}  // namespace response_request_test
}  // namespace optserve::http_api
