// Jobs from Submit to JobFinished, one behaviour at a time.
#include "scheduler/scheduler_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace scheduler_service_test {

using protocol::JobState;
using sampling::FinishReason;
using ::testing::HasSubstr;

TEST(Scheduler, AJobGoesFromTextToText) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "hello");
  spec.sampling.seed = 3;
  const auto expected = reference_of(spec);
  const JobId id = world.submit(spec);
  const auto question = world.only<protocol::Encode>(world.tokenizer);
  EXPECT_EQ(question.items[0].text, "hello");
  world.send(world.tokenizer, encode_bytes(question));
  const auto item = world.dispatched(world.worker);
  EXPECT_EQ(item.job, id);
  ASSERT_EQ(item.tokens.size(), 6u);
  EXPECT_EQ(item.tokens[0], kEndOfText);
  EXPECT_EQ(item.prompt_tokens, 6);
  world.generate(world.worker, item, 0, 8);
  world.tokenize();
  EXPECT_EQ(world.streamed_text(), expected.text);
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.job, id);
  EXPECT_EQ(result.key, "a");
  EXPECT_EQ(result.state, JobState::kSucceeded);
  EXPECT_EQ(result.finish_reason, expected.reason);
  EXPECT_EQ(result.text, expected.text);
  EXPECT_EQ(result.ids, expected.ids);
  EXPECT_EQ(result.prompt_tokens, 6);
  EXPECT_EQ(result.attempts, 1);
  EXPECT_EQ(world.service->jobs().size(), 0u);
}

TEST(Scheduler, TheFinalEndOfTextIsInTheIdsButNotInTheText) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a"));
  world.send(world.worker, protocol::Tokens{1, {item.lease}, {0}, {kFirstByteId + 'x'}, {0}});
  world.send(world.worker, protocol::Tokens{1, {item.lease}, {1}, {kEndOfText}, {1}});
  const auto question = world.only<protocol::Decode>(world.tokenizer);
  world.send(world.tokenizer, decode_bytes(question));
  const auto last = world.only<protocol::Decode>(world.tokenizer);
  EXPECT_TRUE(last.items[0].ids.empty());
  EXPECT_TRUE(last.items[0].flush);
  world.send(world.tokenizer, decode_bytes(last));
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.text, "x");
  EXPECT_EQ(result.ids, (std::vector<TokenId>{kFirstByteId + 'x', kEndOfText}));
  EXPECT_EQ(result.finish_reason, sampling::FinishReason::kEndOfText);
}

TEST(Scheduler, TokensThatArriveDuringADecodeTravelTogether) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a", "once", 8));
  for (uint32_t p = 0; p < 5; ++p) {
    world.send(world.worker, protocol::Tokens{1, {item.lease}, {p}, {kFirstByteId + 'a'}, {0}});
  }
  const auto first = world.only<protocol::Decode>(world.tokenizer);
  EXPECT_EQ(first.items[0].ids.size(), 1u);
  world.send(world.tokenizer, decode_bytes(first));
  EXPECT_EQ(world.only<protocol::Decode>(world.tokenizer).items[0].ids.size(), 4u);
}

TEST(Scheduler, AStopStringEndsTheJobAtTheSameIdHoweverTokensWereBatched) {
  for (const bool batched : {false, true}) {
    World world;
    world.add_services();
    auto spec = job_spec("a", "once", 12);
    spec.stop = {"cd"};
    const auto item = world.submit_and_dispatch(spec);
    for (uint32_t p = 0; p < 9; ++p) {
      world.send(world.worker, protocol::Tokens{1, {item.lease}, {p}, {TokenId(kFirstByteId + 'a' + int(p))}, {0}});
      if (!batched) world.tokenize();
    }
    world.tokenize();
    const auto result = world.only<protocol::JobFinished>(world.client).result;
    EXPECT_EQ(result.state, JobState::kSucceeded);
    EXPECT_EQ(result.finish_reason, sampling::FinishReason::kStop);
    EXPECT_EQ(result.text, "ab");
    EXPECT_EQ(result.ids.size(), 4u) << "batched " << batched;
    EXPECT_EQ(world.streamed_text(), "ab");
    const auto revokes = world.take<protocol::Revoke>(world.worker);
    ASSERT_FALSE(revokes.empty());
    EXPECT_EQ(revokes[0].leases, std::vector<uint64_t>{item.lease});
  }
}

// The tokenizer says which of the ids completed the stop string, so no further question is needed.
TEST(Scheduler, AStopStringAmongManyIdsTakesOneQuestion) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "once", 12);
  spec.stop = {"cd"};
  const auto item = world.submit_and_dispatch(spec);
  for (uint32_t p = 0; p < 9; ++p) {
    world.send(world.worker, protocol::Tokens{1, {item.lease}, {p}, {TokenId(kFirstByteId + 'a' + int(p))}, {0}});
  }
  world.send(world.tokenizer, decode_bytes(world.only<protocol::Decode>(world.tokenizer)));
  const auto question = world.only<protocol::Decode>(world.tokenizer);
  EXPECT_EQ(question.items.at(0).ids.size(), 8u);
  world.send(world.tokenizer, decode_bytes(question));
  EXPECT_TRUE(world.take<protocol::Decode>(world.tokenizer).empty());
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.ids.size(), 4u);
}

TEST(Scheduler, IdsAsPromptSkipTheTokenizer) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "");
  spec.prompt_ids = {2, 5, 6};
  world.submit(spec);
  EXPECT_TRUE(world.take<protocol::Encode>(world.tokenizer).empty());
  EXPECT_EQ(world.dispatched(world.worker).tokens, spec.prompt_ids);
}

TEST(Scheduler, RefusesWhatCannotBeServedAndNamesWhy) {
  World world;
  world.add_services();
  auto unknown = job_spec("a");
  unknown.model = "gpt";
  auto outcome = world.submit_refused(unknown);
  EXPECT_EQ(outcome.error, ErrorCode::kUnknownModel);
  EXPECT_EQ(outcome.message, "model gpt is not served; served models: opt");
  EXPECT_EQ(world.submit_refused(job_spec("b", "")).error, ErrorCode::kBadRequest);
  auto hot = job_spec("c");
  hot.sampling.temperature = 3;
  EXPECT_THAT(world.submit_refused(hot).message, HasSubstr("temperature"));
  auto ids = job_spec("d", "");
  ids.prompt_ids = {2, kVocab};
  EXPECT_THAT(world.submit_refused(ids).message, HasSubstr("id 259, but the vocabulary of model opt has 259 ids"));
  ids.prompt_ids.assign(500, 5);
  ids.max_new_tokens = 13;
  EXPECT_EQ(world.submit_refused(ids).error, ErrorCode::kPromptTooLong);
  ids.max_new_tokens = 12;
  world.submit(ids);  // exactly the context
  world.submit(job_spec("e"));
}

TEST(Scheduler, AConfiguredModelQueuesUntilAWorkerComes) {
  SchedulerOptions options;
  options.models = {"opt"};
  World world(options);
  world.submit(job_spec("a"));
  world.advance(seconds(2));
  world.add_services();
  world.tokenize();
  EXPECT_EQ(world.dispatched(world.worker).tokens.size(), 5u);
}

TEST(Scheduler, AnOverlongTextFailsWithTheNumbers) {
  World world;
  world.add_services();
  world.submit(job_spec("a", std::string(510, 'x'), 2));
  world.tokenize();
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kFailed);
  EXPECT_EQ(result.error, ErrorCode::kPromptTooLong);
  EXPECT_THAT(result.message, HasSubstr("prompt of 511 tokens (with the leading </s>) and max_new_tokens 2 exceed the "
                                        "context of 512 tokens of model opt"));
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
}

TEST(Scheduler, TheSameKeyAndPayloadIsTheSameJobAnotherPayloadAConflict) {
  World world;
  world.add_services();
  const JobId id = world.submit(job_spec("a"));
  world.send(world.client, protocol::Submit{8, true, {job_spec("a"), job_spec("a", "other")}});
  const auto reply = world.only<protocol::SubmitReply>(world.client);
  EXPECT_EQ(reply.outcomes[0].job, id);
  EXPECT_TRUE(reply.outcomes[0].duplicate);
  EXPECT_EQ(reply.outcomes[1].error, ErrorCode::kIdempotencyConflict);
  auto other_tenant = job_spec("a", "other");
  other_tenant.tenant = "t2";
  EXPECT_NE(world.submit(other_tenant), id);
  EXPECT_EQ(world.service->jobs().size(), 2u);
}

TEST(Scheduler, AFinishedJobAnswersItsKeyUntilItsResultExpires) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "once", 1);
  spec.result_ttl_ms = 5'000;
  const auto item = world.submit_and_dispatch(spec);
  world.generate(world.worker, item, 0, 1);
  world.tokenize();
  const auto first = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(world.submit(spec), item.job);
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result, first);
  world.heartbeat(world.worker, 2);
  world.advance(seconds(16));
  world.sent.clear();
  world.add_services();
  EXPECT_NE(world.submit(spec), item.job);
}

TEST(Scheduler, BoundsAreAnsweredAsBusy) {
  SchedulerOptions options;
  options.open_jobs_max = 2;
  World world(options);
  world.add_services();
  world.send(world.client, protocol::Submit{1, true, {job_spec("a"), job_spec("b"), job_spec("c")}});
  const auto reply = world.only<protocol::SubmitReply>(world.client);
  EXPECT_TRUE(reply.outcomes[1].job.has_value());
  EXPECT_EQ(reply.outcomes[2].error, ErrorCode::kBusy);
  world.send(world.client, protocol::Submit{2, true, {}});
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kBadRequest);
}

TEST(Scheduler, PriorityThenOrderAndNoMoreThanTheGroupHolds) {
  World world;
  world.add_tokenizer(world.tokenizer, 1);
  for (const auto& [key, priority] : {std::pair{"low", 0}, {"mid1", 5}, {"mid2", 5}, {"high", 9}}) {
    auto spec = job_spec(key);
    spec.priority = priority;
    world.submit(spec);
  }
  world.tokenize();
  world.add_worker(world.worker, 2, 3);
  const auto message = world.only<protocol::Dispatch>(world.worker);
  ASSERT_EQ(message.items.size(), 3u);
  world.send(world.client, protocol::GetJob{1, message.items[0].job});
  EXPECT_EQ(world.only<protocol::JobStatus>(world.client).result.key, "high");
  world.send(world.client, protocol::GetJob{1, message.items[1].job});
  EXPECT_EQ(world.only<protocol::JobStatus>(world.client).result.key, "mid1");
  world.generate(world.worker, message.items[0], 0, 8);
  EXPECT_EQ(world.take<protocol::Dispatch>(world.worker).size(), 1u);
}

TEST(Scheduler, TheKvBudgetOfAGroupIsKept) {
  World world;
  world.add_tokenizer(world.tokenizer, 1);
  world.add_worker(world.worker, 2, 8, 64);
  for (const char* key : {"a", "b", "c"}) world.submit(job_spec(key, std::string(20, 'x'), 8));  // 32 tokens each
  world.tokenize();
  size_t dispatched = 0;
  for (const auto& message : world.take<protocol::Dispatch>(world.worker)) dispatched += message.items.size();
  EXPECT_EQ(dispatched, 2u);
}

TEST(Scheduler, WorkSpreadsOverGroups) {
  World world;
  world.add_services();
  world.add_worker(world.worker2, 3);
  for (const char* key : {"a", "b", "c", "d"}) world.submit(job_spec(key));
  world.tokenize();
  size_t first = 0, second = 0;
  for (const auto& message : world.take<protocol::Dispatch>(world.worker)) first += message.items.size();
  for (const auto& message : world.take<protocol::Dispatch>(world.worker2)) second += message.items.size();
  EXPECT_EQ(first, 2u);
  EXPECT_EQ(second, 2u);
}

TEST(Scheduler, PromptLogprobsAreCollected) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "abc", 1);
  spec.prompt_logprobs = true;
  const auto item = world.submit_and_dispatch(spec);
  EXPECT_TRUE(item.prompt_logprobs);
  world.send(world.worker, protocol::PromptLogprobs{1, item.lease, 1, {-1.0f, -2.0f}});
  world.send(world.worker, protocol::PromptLogprobs{1, item.lease, 3, {-3.0f}});
  world.generate(world.worker, item, 0, 1);
  world.tokenize();
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.prompt_logprobs,
            (std::vector<float>{-1.0f, -2.0f, -3.0f}));
}

TEST(Scheduler, TheBestIdsOfAPromptAreCollectedWithItsLogprobs) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "abc", 1);
  spec.prompt_logprobs = true;
  spec.prompt_best = 2;
  auto item = world.submit_and_dispatch(spec);
  EXPECT_EQ(item.prompt_best, 2);
  const std::vector<std::vector<sampling::TokenLogprob>> best = {
      {{7, -0.5f}, {8, -1.0f}}, {{9, -0.25f}, {7, -2.0f}}, {{5, -0.125f}}};
  world.send(world.worker, protocol::PromptLogprobs{1, item.lease, 1, {-1.0f}, {best[0]}});
  // One list for each value; a worker that does not know them sends none.
  world.send(world.worker, protocol::PromptLogprobs{1, item.lease, 2, {-2.0f, -3.0f}, {best[1]}});
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker).leases.at(0), item.lease);
  item = world.dispatched(world.worker);
  EXPECT_EQ(item.prompt_best, 2);
  world.send(world.worker, protocol::PromptLogprobs{1, item.lease, 1, {-1.0f, -2.0f}, {best[0], best[1]}});
  world.send(world.worker, protocol::PromptLogprobs{1, item.lease, 3, {-3.0f}, {best[2]}});
  world.generate(world.worker, item, 0, 1);
  world.tokenize();
  const protocol::JobResult result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.prompt_logprobs, (std::vector<float>{-1.0f, -2.0f, -3.0f}));
  EXPECT_EQ(result.prompt_best, best);
}

TEST(Scheduler, ConversionsGoToConverters) {
  World world;
  const World::Peer converter{1, "converter"};
  world.send(converter, protocol::Register{instance(9), protocol::ServiceKind::kConverter, "c", "test", {}, 1, 0, 1});
  protocol::JobSpec spec;
  spec.key = "convert";
  spec.kind = protocol::JobKind::kConvert;
  spec.convert = protocol::ConvertSpec{"/in", "/out", "fp16", 2};
  world.submit(spec);
  EXPECT_EQ(world.only<protocol::JobEvents>(world.client).events[0].progress_total, 0);
  const auto work = world.only<protocol::ConvertDispatch>(converter);
  EXPECT_EQ(work.spec, *spec.convert);
  world.send(converter, protocol::ConvertProgress{1, work.lease, 10, 100, "", false});
  const auto events = world.only<protocol::JobEvents>(world.client).events;
  EXPECT_EQ(events[0].progress_done, 10);
  EXPECT_EQ(events[0].progress_total, 100);
  world.send(converter, protocol::ConvertProgress{1, work.lease, 100, 100, "wrote 2 shards", true});
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kSucceeded);
  EXPECT_EQ(result.message, "wrote 2 shards");
  EXPECT_EQ(result.progress_done, 100);
}

TEST(Scheduler, EachPortTakesItsOwnMessages) {
  World world;
  world.send(world.client, protocol::Register{instance(1), protocol::ServiceKind::kWorker, "w", "b", {}, 1, 0, 1});
  EXPECT_THAT(world.only<protocol::Refused>(world.client).message, HasSubstr("Register is not a message that clients"));
  world.send(world.worker, protocol::Submit{1, true, {job_spec("a")}});
  EXPECT_EQ(world.only<protocol::Refused>(world.worker).code, ErrorCode::kNotFound);
  world.send(world.client, protocol::Ping{5});
  EXPECT_EQ(world.only<protocol::Pong>(world.client), (protocol::Pong{5, 1}));
  world.send(world.client, protocol::Refused{0, ErrorCode::kInternal, "no"});
  EXPECT_TRUE(world.sent.empty());
}

TEST(Scheduler, StatusShowsServicesAndJobs) {
  World world;
  world.add_services();
  world.submit_and_dispatch(job_spec("a"));
  world.submit(job_spec("b"));
  world.send(world.client, protocol::GetStatus{4});
  const auto status = world.only<protocol::SystemStatus>(world.client);
  EXPECT_EQ(status.request, 4u);
  EXPECT_EQ(status.running, 1);
  EXPECT_EQ(status.queued, 1);
  EXPECT_FALSE(status.durable);
  ASSERT_EQ(status.services.size(), 2u);
  EXPECT_EQ(status.services[1].kind, "worker");
  EXPECT_EQ(status.services[1].running, 1);
}

// The value of a metric with these labels.
double metric(const World& world, const std::string& name) {
  const std::string text = world.metrics();
  const size_t found = text.find("\n" + name + " ");
  return found == std::string::npos ? -1 : std::stod(text.substr(found + name.size() + 2));
}

TEST(Scheduler, CountsTheKeysThatAreForgottenBeforeTheirTime) {
  SchedulerOptions options;
  options.known_keys_max = 2;
  World world(options);
  world.add_services();
  const JobId first = world.submit(job_spec("a"));
  const JobId second = world.submit(job_spec("b"));
  for (const JobId& job : {first, second}) world.send(world.client, protocol::Cancel{1, job});
  EXPECT_EQ(metric(world, "optserve_keys_evicted_total"), 0);
  world.submit(job_spec("c"));
  EXPECT_EQ(metric(world, "optserve_keys_evicted_total"), 1);
  world.submit(job_spec("d"));
  EXPECT_EQ(metric(world, "optserve_keys_evicted_total"), 2);
  EXPECT_NE(world.submit(job_spec("a")), first);  // an open job keeps its key, so there are more than two now
  EXPECT_EQ(metric(world, "optserve_keys_evicted_total"), 2);
}

TEST(Scheduler, MeasuresEachModel) {
  World world;
  world.add_services();
  world.advance(seconds(2));
  const std::string model = "{model=\"" + ids_spec("a", "t").model + "\"}";
  EXPECT_EQ(metric(world, "optserve_model_groups" + model), 1);
  EXPECT_EQ(metric(world, "optserve_model_oldest_job_seconds" + model), 0);
  world.submit(job_spec("text"));  // waits for a tokenizer, which does not answer
  world.advance(seconds(1));
  EXPECT_NEAR(metric(world, "optserve_model_oldest_job_seconds" + model), 1, 0.11);
  EXPECT_NEAR(metric(world, "optserve_oldest_job_seconds"), 1, 0.11);
  EXPECT_EQ(metric(world, "optserve_model_jobs_accepted_total" + model), 1);
  EXPECT_EQ(metric(world, "optserve_job_first_token_seconds_count" + model), 0);
  EXPECT_EQ(metric(world, "optserve_services_lost_total{service=\"worker\"}"), 0);
  world.advance(seconds(10));  // nobody says anything
  EXPECT_EQ(metric(world, "optserve_services_lost_total{service=\"worker\"}"), 1);
  EXPECT_EQ(metric(world, "optserve_model_groups" + model), 0);
}

TEST(Scheduler, CountsRefusalsByTheBoundThatIsReached) {
  const auto refused_for = [](SchedulerOptions options, const std::string& reason) {
    World world(options);
    world.add_services();
    for (int job = 0; job < 3; ++job) {
      world.send(world.client, protocol::Submit{1, false, {ids_spec("k" + std::to_string(job), "tenant")}});
    }
    return metric(world, "optserve_jobs_busy_total{reason=\"" + reason + "\"}");
  };
  SchedulerOptions jobs, bytes, tenant;
  jobs.tenant_share = bytes.tenant_share = tenant.tenant_share = 1;
  jobs.open_jobs_max = 1;
  EXPECT_EQ(refused_for(jobs, "jobs"), 2);
  bytes.queue_bytes_max = 1;
  EXPECT_EQ(refused_for(bytes, "bytes"), 3);
  tenant.tenant_jobs_max = 2;
  EXPECT_EQ(refused_for(tenant, "tenant"), 1);
}

}  // namespace scheduler_service_test
}  // namespace optserve::scheduler::testing
