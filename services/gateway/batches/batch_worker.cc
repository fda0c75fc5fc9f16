#include "gateway/batches/batch_worker.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "base/log.h"

namespace optserve::gateway {
namespace {

constexpr milliseconds kWorkStep{100};
constexpr seconds kLookInterval{1};
constexpr seconds kSweepInterval{60};
constexpr size_t kActiveMax = 8;
constexpr uint64_t kLinesMax = 50'000;
constexpr size_t kErrorsMax = 100;

// Tokens of the answers in a file, from each answer's usage.
void add_usage(const std::string& path, BatchState& state) {
  batches::LineReader reader(path, batches::kLineBytesMax * 4);
  state.input_tokens = state.output_tokens = 0;
  while (const auto line = reader.next()) {
    const nlohmann::json answer = nlohmann::json::parse(line->text, nullptr, false);
    const auto usage = nlohmann::json::json_pointer("/response/body/usage");
    if (answer.is_discarded() || !answer.contains(usage)) continue;
    const nlohmann::json& counts = answer.at(usage);  // named otherwise in responses
    state.input_tokens += counts.value("prompt_tokens", counts.value("input_tokens", 0));
    state.output_tokens += counts.value("completion_tokens", counts.value("output_tokens", 0));
  }
}

}  // namespace

// A batch that this gateway runs.
struct BatchWorker::Active {
  Active(FileLock its_lock, BatchState its_state, const batches::LineContext& context, const std::string& input,
         const BatchStore& store)
      : lock(std::move(its_lock)),
        state(std::move(its_state)),
        reader(input, batches::kLineBytesMax),
        outcomes(store.answers_path(state.id), store.errors_path(state.id), state.id),
        run(context, {}, reader, outcomes) {}

  FileLock lock;
  BatchState state;
  batches::LineReader reader;
  batches::OutcomeFiles outcomes;
  batches::BatchRun run;
  uint64_t number = 0;  // in the driver
  bool is_given_up = false;
  bool is_over = false;
  Instant looked{};
};

BatchWorker::BatchWorker(FileStore& files, BatchStore& batches, BatchTexts texts, int64_t keep_seconds,
                         const client::ClientOptions& options, const Clock& clock)
    : files_(files),
      batches_(batches),
      models_(std::move(texts.models)),
      chat_(texts.chat),
      keep_seconds_(keep_seconds),
      clock_(clock),
      client_(options),
      driver_(client_, clock),
      thread_([this] { run(); }) {}

BatchWorker::~BatchWorker() {
  is_stopping_ = true;
  driver_.wake();
  thread_.join();
}

void BatchWorker::run() {
  Instant looked{};
  while (!is_stopping_) {
    driver_.step(kWorkStep);
    if (clock_.now() - looked >= kLookInterval) {
      try {
        look_for_batches();
      } catch (const std::exception& error) {
        log_error("batches_not_read", {{"cause", error.what()}});
      }
      looked = clock_.now();
    }
    for (Active& active : active_) {
      try {
        look_after(active);
      } catch (const std::exception& error) {
        // The disk may be full. What was written stays, and the batch continues from there later.
        log_error("batch_interrupted", {{"batch", active.state.id}, {"cause", error.what()}});
        driver_.remove(active.number);
        active.is_over = true;
      }
    }
    active_.remove_if([](const Active& active) { return active.is_over; });
  }
  for (Active& active : active_) {
    driver_.remove(active.number);
    try {
      active.outcomes.flush();
    } catch (const std::exception& error) {
      log_error("batch_interrupted", {{"batch", active.state.id}, {"cause", error.what()}});
    }
  }
  active_.clear();
}

void BatchWorker::look_for_batches() {
  if (clock_.now() - swept_ >= kSweepInterval) {
    sweep();
    swept_ = clock_.now();
  }
  for (const std::string& id : batches_.ids()) {
    const bool is_active = std::ranges::any_of(active_, [&id](const Active& active) { return active.state.id == id; });
    if (is_active || active_.size() >= kActiveMax || ended_.contains(id) || is_stopping_) continue;
    try {
      begin(id);
    } catch (const std::exception& error) {
      log_error("batch_not_begun", {{"batch", id}, {"cause", error.what()}});
    }
  }
}

// A file that is the input of a batch is kept until the batch has ended.
void BatchWorker::sweep() {
  std::set<std::string, std::less<>> in_use;
  for (const BatchState& state : batches_.list()) {
    if (!is_ended(state.status)) {
      in_use.insert(state.input_file_id);
    } else if (keep_seconds_ > 0 && ended_at(state) + keep_seconds_ <= wall()) {
      batches_.remove(state.id);
      ended_.erase(state.id);
    }
  }
  files_.sweep(wall(), in_use);
}

void BatchWorker::begin(const std::string& id) {
  std::optional<BatchState> state = batches_.find(id);
  if (!state) return;  // another gateway is creating it
  if (is_ended(state->status)) {
    ended_.insert(id);
    return;
  }
  std::optional<FileLock> lock = batches_.try_lock(id);
  if (!lock) return;
  state = batches_.find(id);  // whoever had the lock before may have ended it
  if (is_ended(state->status)) return;
  if (state->finalizing_at != 0) return finish(*state);
  if (!files_.find(state->input_file_id, 0)) {  // it may have expired since
    return fail(*state, "input_file_missing", "the input file " + state->input_file_id + " is no longer there");
  }
  if (state->in_progress_at == 0 && !validate(*state)) return;
  const batches::LineContext context{.models = *models_,
                                     .run = state->id,
                                     .caller = {.tenant = state->tenant, .may_operate = false},
                                     .url = state->endpoint,
                                     .created = state->created_at,
                                     .chat = chat_};
  const std::string input = files_.content_path(state->input_file_id);
  Active& active = active_.emplace_back(std::move(*lock), std::move(*state), context, input, batches_);
  active.number = driver_.add(active.run);
  log_info("batch_runs", {{"batch", id},
                          {"lines", active.state.total},
                          {"done", active.outcomes.num_answers() + active.outcomes.num_errors()}});
}

void BatchWorker::fail(BatchState& state, std::string code, std::string message) const {
  state.errors.push_back({.line = 0, .code = std::move(code), .message = std::move(message), .param = {}});
  state.status = BatchStatus::kFailed;
  state.failed_at = wall();
  batches_.save(state, true);
  batches_.tidy(state.id);
}

// Reads the whole input once. False: it has mistakes, and the batch has failed.
bool BatchWorker::validate(BatchState& state) const {
  batches::LineReader reader(files_.content_path(state.input_file_id), batches::kLineBytesMax);
  std::unordered_set<std::string> custom_ids;
  state.total = 0;
  while (const auto input = reader.next()) {
    if (++state.total > kLinesMax) {
      fail(state, "too_many_requests", "the input has more than " + std::to_string(kLinesMax) + " lines");
      return false;
    }
    batches::LineForm form =
        input->is_too_long ? batches::LineForm{.error = http_api::request_too_large("line", batches::kLineBytesMax)}
                           : batches::check_request_line(input->text, state.endpoint);
    if (!form.error && !custom_ids.insert(form.custom_id).second) {
      form.error = http_api::invalid_value("custom_id", "custom_id is that of an earlier line");
      form.error->code = "duplicate_custom_id";
    }
    if (state.total == 1) state.model = form.model;
    if (!form.error || state.errors.size() >= kErrorsMax) continue;
    state.errors.push_back({input->number, form.error->code.empty() ? "invalid_request" : form.error->code,
                            form.error->message, form.error->param});
  }
  if (state.total == 0) {
    fail(state, "empty_file", "the input has no lines");
    return false;
  }
  if (!state.errors.empty()) {
    state.status = BatchStatus::kFailed;
    state.failed_at = wall();
    batches_.save(state, true);
    return false;
  }
  state.status = BatchStatus::kInProgress;
  state.in_progress_at = wall();
  batches_.save(state, true);
  return true;
}

void BatchWorker::look_after(Active& active) {
  if (active.run.is_over()) return end(active);
  if (clock_.now() - active.looked < kLookInterval) return;
  active.looked = clock_.now();
  active.outcomes.flush();
  BatchState& state = active.state;
  if (const auto asked = batches_.asked_to_cancel_at(state.id); asked && !active.is_given_up) {
    state.status = BatchStatus::kCancelling;
    state.cancelling_at = *asked;
    active.is_given_up = true;
    driver_.cancel(active.run.give_up());
  } else if (wall() >= state.expires_at && !active.is_given_up) {
    state.expired_at = wall();
    active.is_given_up = true;
    driver_.cancel(active.run.give_up("batch_expired", "the batch's completion_window was over before this line"));
  }
  const batches::BatchRun::Counts counts = active.run.counts();
  if (counts.answered == state.completed && counts.failed == state.failed) return;
  state.completed = counts.answered;
  state.failed = counts.failed;
  batches_.save(state, false);
}

void BatchWorker::end(Active& active) {
  driver_.remove(active.number);
  active.outcomes.flush();
  active.is_over = true;
  BatchState& state = active.state;
  state.completed = active.outcomes.num_answers();
  state.failed = active.outcomes.num_errors();
  add_usage(batches_.answers_path(state.id), state);
  if (state.completed > 0) state.output_file_id = FileStore::new_id();
  if (state.failed > 0) state.error_file_id = FileStore::new_id();
  state.status = BatchStatus::kFinalizing;
  state.finalizing_at = wall();
  batches_.save(state, true);
  finish(state);
}

// Continues where a killed gateway stopped.
void BatchWorker::finish(BatchState& state) const {
  adopt(state, batches_.answers_path(state.id), state.output_file_id, "output");
  adopt(state, batches_.errors_path(state.id), state.error_file_id, "error");
  if (state.cancelling_at != 0) {
    state.status = BatchStatus::kCancelled;
    state.cancelled_at = wall();
  } else if (state.expired_at != 0) {
    state.status = BatchStatus::kExpired;
  } else {
    state.status = BatchStatus::kCompleted;
    state.completed_at = wall();
  }
  batches_.save(state, true);
  batches_.tidy(state.id);
  log_info("batch_ended", {{"batch", state.id},
                           {"status", batch_status_name(state.status)},
                           {"completed", state.completed},
                           {"failed", state.failed}});
}

void BatchWorker::adopt(const BatchState& state, const std::string& part, const std::string& id,
                        const char* what) const {
  if (id.empty() || files_.find(id, 0)) return;
  StoredFile file{.id = id,
                  .filename = state.id + "_" + what + ".jsonl",
                  .purpose = "batch_output",
                  .tenant = state.tenant,
                  .created_at = state.finalizing_at};
  const int64_t kept = state.output_expires_seconds > 0 ? state.output_expires_seconds : keep_seconds_;
  if (kept > 0) file.expires_at = file.created_at + kept;
  files_.adopt(part, file);
}

}  // namespace optserve::gateway
