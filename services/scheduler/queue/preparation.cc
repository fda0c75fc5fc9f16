#include "scheduler/queue/preparation.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "scheduler/jobs/job_times.h"

namespace optserve::scheduler {

Refusal no_text(const std::string& model) {
  return refuse(ErrorCode::kBadRequest, "model " + model +
                                            " was converted without a tokenizer: it takes prompt_ids and gives ids, "
                                            "and knows no text, stop strings or bad words");
}

void Preparation::begin(Job& job, Instant now) {
  if (job.times.begins_at > now) {
    tables_.jobs.delay(job, job.times.begins_at);
  } else if (!job.is_generation()) {
    job.times.ready_at = now;
    enqueue(job, now);
  } else if (!job.spec().prompt_ids.empty() && job.spec().bad_words.empty()) {
    job.prompt().ids = job.spec().prompt_ids;
    job.times.ready_at = now;
    enqueue(job, now);
  } else if (!tables_.services.has_text(job.spec().model)) {  // which was not known when the job was accepted
    endings_.fail(job, no_text(job.spec().model), now);
  } else {
    tables_.jobs.move(job, Stage::kEncoding);
    job.slot.queue->jobs.expect(job);
    tables_.tokenizers.ask_encode(job);
  }
}

void Preparation::on(ServiceEntry& from, protocol::Encoded message, Instant now) {
  for (protocol::EncodedItem& item : message.items) {
    const TokenizerPool::Answered answered = tables_.tokenizers.take_answer(from, item.ticket, false);
    if (answered.job != nullptr) on_encoded(*answered.job, std::move(item), now);
  }
}

void Preparation::on_encoded(Job& job, protocol::EncodedItem item, Instant now) {
  if (item.error == ErrorCode::kBusy || item.error == ErrorCode::kUnavailable) {
    decoding_.ask_again(job, true, now);
    return;
  }
  if (item.error) {
    endings_.fail(job, refuse(*item.error, item.message), now);
    return;
  }
  const protocol::ModelInfo* model = tables_.services.model(job.spec().model);
  const int32_t vocab =
      model != nullptr && model->vocab > 0 ? model->vocab : static_cast<int32_t>(limits::kVocabularyMax);
  const auto fit = [vocab](const std::vector<TokenId>& ids) {
    return std::ranges::all_of(ids, [vocab](TokenId id) { return id >= 0 && id < vocab; });
  };
  const bool words_fit =
      item.bad_words.size() <= 2 * job.spec().bad_words.size() && std::ranges::all_of(item.bad_words, fit);
  if (item.ids.empty() || !fit(item.ids) || !words_fit || item.count < item.ids.size()) {
    decoding_.ask_again(job, true, now);  // this tokenizer is faulty; another one may work
    return;
  }
  const bool has_ids = !job.spec().prompt_ids.empty();  // then only the bad words were asked for
  const size_t count = has_ids ? job.spec().prompt_ids.size() : size_t{item.count};
  const Status fits = tables_.services.check_length(job.spec().model, count, job.spec().max_new_tokens);
  if (!fits.ok()) {
    endings_.fail(job, fits.refusal(), now);
    return;
  }
  TokenizerPool::accept(job);
  job.prompt().bad_word_ids = std::move(item.bad_words);
  if (has_ids) {
    job.prompt().ids = job.spec().prompt_ids;
  } else {
    job.prompt().ids = std::move(item.ids);
    job.slot.queue->load.learn_prompt(job.spec().prompt.size(), count);
  }
  job.times.ready_at = now;
  job.slot.cost = static_cast<int64_t>(count) + job.tokens_each() * job.spec().max_new_tokens;
  tables_.bounds.update(job);
  tables_.metrics.of_model(job.spec().model)
      .encode_seconds.observe(
          std::chrono::duration<double>(now - std::max(job.times.begins_at, job.times.accepted_at)).count());
  enqueue(job, now);
}

void Preparation::enqueue(Job& job, Instant now) {
  if (job.is_generation()) {
    JobOutput& output = job.output();
    // Only the length can end a job here. Every other end is the worker's word, which comes with the last token, and an
    // output whose last token has come is not saved as progress.
    const bool scores = job.only_scores() && job.prompt().ids.size() > 1;
    if (!scores && output.ids.size() >= static_cast<size_t>(job.spec().max_new_tokens)) {
      output.finish_reason = sampling::FinishReason::kLength;
    }
    if (output.is_complete()) {
      job.slot.queue->jobs.leave(job);
      tables_.jobs.move(job, Stage::kDecoding);
      decoding_.decode_more(job, now);
      return;
    }
    const Status fits =
        tables_.services.check_length(job.spec().model, job.prompt().ids.size(), job.spec().max_new_tokens);
    if (!fits.ok()) {
      endings_.fail(job, fits.refusal(), now);
      return;
    }
  }
  tables_.jobs.move(job, Stage::kWaiting);
  job.slot.hurry_at = half_of_time_to_start(job);
  job.slot.queue->jobs.push(job);
  tables_.queues.want(*job.slot.queue);
  decoding_.decode_more(job, now);
}

void Preparation::end_delays(Instant now) {
  while (Job* job = tables_.jobs.take_undelayed(now)) {
    if (job->times.ready_at == Instant{}) {
      begin(*job, now);
    } else {
      enqueue(*job, now);
    }
  }
}

}  // namespace optserve::scheduler
