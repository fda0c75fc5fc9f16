#include "batches/batch_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>

#include "http_api/openai/test_models.h"
#include "support/temporary_folder.h"

namespace optserve::batches {
namespace batch_run_test {

using nlohmann::json;
using protocol::JobResult;
using protocol::JobState;
using ::testing::HasSubstr;

// A folder with an input, and runs over it.
class BatchRunTest : public ::testing::Test {
 protected:
  void write_input(int lines) {
    std::ofstream out(folder_ / "in");
    for (int i = 1; i <= lines; ++i) {
      out << json{{"prompt", "Once"}, {"model", "story"}, {"custom_id", "c" + std::to_string(i)}}.dump() << "\n";
    }
  }
  void write_text(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }
  std::string text_of(const std::string& name) const {
    std::ifstream in(folder_ / name);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  std::vector<json> lines_of(const std::string& name) const {
    std::istringstream in(text_of(name));
    std::vector<json> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
    return lines;
  }
  // Begins like a new process: the previous run is forgotten, and what it had not flushed is lost.
  BatchRun& begin() {
    run_.reset();
    files_.reset();
    reader_.emplace(folder_ / "in", kLineBytesMax);
    files_.emplace(folder_ / "out", folder_ / "errors", "r");
    const LineContext context{.models = models_, .run = "r"};
    run_.emplace(context, limits_, *reader_, *files_);
    return *run_;
  }
  static std::vector<protocol::SubmitOutcome> accepted(const BatchRun::Work& work) {
    std::vector<protocol::SubmitOutcome> outcomes;
    for (const protocol::JobSpec& job : work.jobs) outcomes.emplace_back().job = id_of(job.key);
    return outcomes;
  }
  static JobId id_of(const std::string& key) {
    JobId id;
    for (size_t i = 0; i < key.size(); ++i) id.bytes[i % 16] = static_cast<uint8_t>(id.bytes[i % 16] * 31 + key[i]);
    return id;
  }
  static JobResult result_of(const std::string& key, JobState state = JobState::kSucceeded) {
    JobResult result;
    result.job = id_of(key);
    result.key = key;
    result.state = state;
    result.text = "text of " + key;
    result.ids = {4, 5};
    result.prompt_tokens = 2;
    return result;
  }
  void succeed(BatchRun& run, const BatchRun::Work& work) {
    run.on_submitted(work.ticket, accepted(work), now_);
    for (const protocol::JobSpec& job : work.jobs) run.on_finished(work.ticket, result_of(job.key), now_);
  }

  test_support::TemporaryFolder folder_;
  http_api::Models models_ = http_api::test_models();
  RunLimits limits_{};
  Instant now_{Duration(seconds(1'000))};
  std::optional<LineReader> reader_;
  std::optional<OutcomeFiles> files_;
  std::optional<BatchRun> run_;
};

TEST_F(BatchRunTest, AnswersEveryLineOnce) {
  write_input(20);
  limits_.open_jobs_max = 4;
  BatchRun& run = begin();
  std::vector<BatchRun::Work> open;
  size_t most = 0;
  while (!run.is_over()) {
    while (auto work = run.next(now_)) open.push_back(std::move(*work));
    most = std::max(most, open.size());
    if (open.empty()) continue;
    succeed(run, open.back());
    open.pop_back();
  }
  files_->flush();
  EXPECT_EQ(most, 4u) << "no more jobs are open at a time than the limit says";
  std::set<std::string> ids;
  for (const json& line : lines_of("out")) ids.insert(line.at("custom_id").get<std::string>());
  EXPECT_EQ(ids.size(), 20u);
  EXPECT_EQ(run.counts().answered, 20u);
  EXPECT_EQ(run.counts().completion_tokens, 40);
  EXPECT_EQ(text_of("errors"), "");
}

TEST_F(BatchRunTest, WrongLinesAreAnsweredWithErrorsAndTheOthersGoOn) {
  write_text("in", "{broken\n\n{\"prompt\":\"Once\",\"model\":\"story\"}\r\n{\"prompt\":7}\n{\"prompt\":\"x\"," +
                       std::string("\"model\":\"story\"}"));
  BatchRun& run = begin();
  while (auto work = run.next(now_)) succeed(run, *work);
  EXPECT_TRUE(run.is_over());
  files_->flush();
  EXPECT_EQ(lines_of("out").size(), 2u) << "the last line needs no line feed";
  ASSERT_EQ(lines_of("errors").size(), 2u);
  EXPECT_EQ(lines_of("errors")[0].at("id"), "r-1");
  EXPECT_EQ(lines_of("errors")[1].at("id"), "r-4") << "lines are counted as editors count them";
}

TEST_F(BatchRunTest, ALineThatIsTooLongIsAnErrorAndTheNextOneIsRead) {
  write_text("in", std::string(kLineBytesMax + 10, 'x') + "\n{\"prompt\":\"Once\",\"model\":\"story\"}\n");
  BatchRun& run = begin();
  while (auto work = run.next(now_)) succeed(run, *work);
  files_->flush();
  EXPECT_EQ(lines_of("out").at(0).at("id"), "r-2");
  EXPECT_THAT(lines_of("errors").at(0).dump(), HasSubstr("too large"));
}

TEST_F(BatchRunTest, TriesAgainWhatPassesWithTheSameKeysAndInTheEndGivesUp) {
  write_input(1);
  limits_.attempts_max = 3;
  BatchRun& run = begin();
  std::set<std::string> keys;
  for (int attempt = 1; attempt <= 3; ++attempt) {
    const auto work = run.next(now_);
    ASSERT_TRUE(work) << attempt;
    keys.insert(work->jobs.front().key);
    run.on_submitted(work->ticket, accepted(*work), now_);
    run.on_lost(work->ticket, refuse(ErrorCode::kNotFound, "nobody knows it"), now_);
    EXPECT_FALSE(run.next(now_)) << "it waits first";
    if (attempt < 3) now_ = run.wakes_at().value();
  }
  EXPECT_EQ(keys.size(), 1u);
  EXPECT_TRUE(run.is_over());
  files_->flush();
  EXPECT_THAT(lines_of("errors").at(0).dump(), HasSubstr("nobody knows it"));
}

TEST_F(BatchRunTest, LinesOfAnUnknownModelWaitOnceForAllOfThem) {
  write_input(500);
  limits_.open_jobs_max = 4;
  BatchRun& run = begin();
  const Instant begun = now_;
  std::vector<protocol::SubmitOutcome> unknown(1);
  unknown[0].error = ErrorCode::kUnknownModel;
  while (!run.is_over()) {
    while (const auto work = run.next(now_)) run.on_submitted(work->ticket, unknown, now_);
    if (const auto wakes = run.wakes_at()) now_ = *wakes;
  }
  EXPECT_EQ(run.counts().failed, 500u);
  EXPECT_GE(now_ - begun, limits_.unknown_model_max);
  EXPECT_LT(now_ - begun, 2 * limits_.unknown_model_max);
}

TEST_F(BatchRunTest, WaitsForSchedulersAsLongAsItTakes) {
  write_input(1);
  limits_.attempts_max = 2;
  BatchRun& run = begin();
  for (int i = 0; i < 100; ++i) {
    const auto work = run.next(now_);
    ASSERT_TRUE(work) << i;
    run.on_submitted(work->ticket, refuse(ErrorCode::kUnavailable, "no scheduler answers"), now_);
    ASSERT_LE(run.wakes_at().value() - now_, limits_.wait_max);
    now_ = run.wakes_at().value();
  }
  EXPECT_EQ(run.last_trouble(), "no scheduler answers");
  succeed(run, *run.next(now_));
  EXPECT_EQ(run.counts().answered, 1u);
}

TEST_F(BatchRunTest, AnExpiredJobIsAnotherAttemptWithAnotherKey) {
  write_input(1);
  BatchRun& run = begin();
  const auto first = run.next(now_);
  run.on_submitted(first->ticket, accepted(*first), now_);
  run.on_finished(first->ticket, result_of(first->jobs[0].key, JobState::kExpired), now_);
  now_ += seconds(1);
  const auto second = run.next(now_);
  ASSERT_TRUE(second);
  EXPECT_NE(second->jobs[0].key, first->jobs[0].key);
  run.on_finished(first->ticket, result_of(first->jobs[0].key), now_);  // late news of the first attempt has no effect
  EXPECT_EQ(run.counts().answered, 0u);
  succeed(run, *second);
  EXPECT_EQ(run.counts().answered, 1u);
}

TEST_F(BatchRunTest, ALostJobIsFoundAgainByItsKey) {
  write_input(1);
  BatchRun& run = begin();
  const auto first = run.next(now_);
  run.on_submitted(first->ticket, accepted(*first), now_);
  run.on_lost(first->ticket, refuse(ErrorCode::kNotFound, "there is no such job"), now_);
  now_ += seconds(1);
  const auto second = run.next(now_);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->jobs, first->jobs);
}

TEST_F(BatchRunTest, AFailedJobIsAnErrorOfItsLine) {
  write_input(2);
  BatchRun& run = begin();
  const auto dead = run.next(now_), good = run.next(now_);
  run.on_submitted(dead->ticket, accepted(*dead), now_);
  run.on_finished(dead->ticket, result_of(dead->jobs[0].key, JobState::kDead), now_);
  succeed(run, *good);
  EXPECT_FALSE(run.next(now_));
  EXPECT_TRUE(run.is_over());
  files_->flush();
  EXPECT_EQ(lines_of("errors").at(0).at("custom_id"), "c1");
  EXPECT_EQ(lines_of("out").at(0).at("custom_id"), "c2");
}

TEST_F(BatchRunTest, ResultsMayComeBeforeTheAnswerToTheSubmit) {
  write_input(1);
  BatchRun& run = begin();
  const auto work = run.next(now_);
  run.on_finished(work->ticket, result_of(work->jobs[0].key), now_);
  EXPECT_EQ(run.counts().answered, 0u);
  run.on_submitted(work->ticket, accepted(*work), now_);
  EXPECT_EQ(run.counts().answered, 1u);
}

// After kills at random places, whatever was written stays, the rest is done again, and in the end each line is there
// once.
TEST_F(BatchRunTest, GoesOnAfterAnyKill) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  constexpr int kLines = 60;
  write_input(kLines);
  limits_.open_jobs_max = 7;
  for (int kill = 0; kill < 200; ++kill) {
    BatchRun& run = begin();
    std::vector<BatchRun::Work> open;
    for (auto step = random() % 12; step > 0 && !run.is_over(); --step) {
      while (auto work = run.next(now_)) open.push_back(std::move(*work));
      if (open.empty()) break;
      std::swap(open[random() % open.size()], open.back());
      succeed(run, open.back());
      open.pop_back();
      if (random() % 3 == 0) files_->flush();
    }
    if (run.is_over()) break;
    const std::string text = text_of("out");  // a kill in the middle of a write
    if (!text.empty() && random() % 2 == 0) {
      std::filesystem::resize_file(folder_ / "out", text.size() - random() % std::min<size_t>(text.size(), 40));
    }
  }
  EXPECT_TRUE(run_->is_over());
  files_->flush();
  std::multiset<std::string> ids;
  for (const json& line : lines_of("out")) ids.insert(line.at("custom_id").get<std::string>());
  EXPECT_EQ(ids.size(), size_t{kLines});
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), size_t{kLines});
}

TEST_F(BatchRunTest, RefusesFilesThatAreNotItsOwn) {
  write_input(1);
  write_text("out", "{\"id\":\"other-1\"}\n");
  EXPECT_THROW(begin(), Error);
  write_text("out", "{\"id\":\"r-1\"}\n{\"id\":\"r-1\"}\n");
  EXPECT_THROW(begin(), Error) << "a line that is answered twice";
  EXPECT_EQ(text_of("out"), "{\"id\":\"r-1\"}\n{\"id\":\"r-1\"}\n") << "nothing of it is removed";
}

TEST_F(BatchRunTest, GivenUpWithAReasonEveryLineIsAnswered) {
  write_input(2'500);
  limits_.open_jobs_max = 3;
  BatchRun& run = begin();
  std::vector<BatchRun::Work> open;
  while (auto work = run.next(now_)) open.push_back(std::move(*work));
  succeed(run, open[0]);
  run.on_submitted(open[1].ticket, accepted(open[1]), now_);
  EXPECT_EQ(run.give_up("batch_expired", "too late").size(), 1u) << "the job that is open and known is cancelled";
  while (!run.is_over()) EXPECT_FALSE(run.next(now_));
  files_->flush();
  EXPECT_EQ(run.counts().answered, 1u);
  EXPECT_EQ(run.counts().failed, 2'499u);
  EXPECT_EQ(lines_of("errors").back().at("error").at("code"), "batch_expired");
}

TEST_F(BatchRunTest, GivenUpWithoutAReasonTheRestIsLeft) {
  write_input(5);
  BatchRun& run = begin();
  const auto first = run.next(now_), second = run.next(now_);
  succeed(run, *first);
  run.give_up();
  run.next(now_);
  EXPECT_TRUE(run.is_over());
  run.on_finished(second->ticket, result_of(second->jobs[0].key), now_);  // comes too late and has no effect
  EXPECT_EQ(run.counts().answered, 1u);
  EXPECT_EQ(run.counts().failed, 0u);
}

}  // namespace batch_run_test
}  // namespace optserve::batches
