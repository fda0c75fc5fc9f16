#include "scheduler/output/decoding.h"

#include <utility>

namespace optserve::scheduler {

void Decoding::decode_more(Job& job, Instant now) {
  if (!tables_.services.has_text(job.spec().model)) return take_without_text(job, now);
  const bool last = job.output().is_complete();
  if (job.searches_beams() && !last) return;  // another search may still take the place of this one
  if (job.decoding().ids < job.ids_with_text() || last) tables_.tokenizers.ask_decode(job);
}

// Of a model that has no tokenizer, the ids are the result.
void Decoding::take_without_text(Job& job, Instant now) {
  job.decoding().ids = job.output().ids.size();
  if (!job.output().is_complete()) return;
  if (!job.output().hypotheses.empty()) {
    job.output().hypotheses.front().ids = job.output().ids;
    job.output().hypotheses.front().finish_reason = job.output().finish_reason;
  }
  endings_.succeed(job, "", now);
}

void Decoding::ask_again(Job& job, bool counts, Instant now) {
  tables_.metrics.tokenizer_retries.add();
  if (tables_.tokenizers.ask_again(job, counts)) return;
  endings_.fail(job,
                refuse(ErrorCode::kInternal,
                       "no tokenizer answered " + std::to_string(tables_.options.tokenizer_tries) + " times in a row"),
                now);
}

void Decoding::on(ServiceEntry& from, protocol::Decoded message, Instant now) {
  for (protocol::DecodedItem& item : message.items) {
    const TokenizerPool::Answered answered = tables_.tokenizers.take_answer(from, item.ticket, true);
    if (answered.job != nullptr) on_decoded(answered, std::move(item), now);
  }
}

void Decoding::on_decoded(const TokenizerPool::Answered& answered, protocol::DecodedItem item, Instant now) {
  Job& job = *answered.job;
  if (item.error == ErrorCode::kBusy || item.error == ErrorCode::kUnavailable) {
    ask_again(job, true, now);
    return;
  }
  if (item.error) {
    endings_.fail(job, refuse(*item.error, item.message), now);
    return;
  }
  JobOutput& output = job.output();
  JobDecoding& decoding = job.decoding();
  if (decoding.hypothesis > 0) {
    TokenizerPool::accept(job);
    output.hypotheses[decoding.hypothesis].text = std::move(item.text);
    complete(job, now);
    return;
  }
  const bool is_stopped = item.stop >= 0;
  const size_t ids = is_stopped ? item.stop_ids : answered.ids;
  if (ids > answered.ids || (ids == 0 && answered.ids > 0)) {
    ask_again(job, true, now);  // this tokenizer is faulty; another one may work
    return;
  }
  TokenizerPool::accept(job);
  output.text += item.text;
  decoding.state = std::move(item.state);
  decoding.ids += ids;
  tables_.bounds.update(job);
  if (!item.text.empty()) tables_.streams.touch(job);
  if (is_stopped) {
    output.ids.resize(decoding.ids);
    if (job.wants_logprobs()) {
      output.logprobs.resize(decoding.ids);
      output.best.resize(decoding.ids);
    }
    output.finish_reason = sampling::FinishReason::kStop;
    complete(job, now);
    return;
  }
  if (answered.flush) {
    complete(job, now);
    return;
  }
  decode_more(job, now);
}

// Ends a job whose text is complete, once its other hypotheses have theirs.
void Decoding::complete(Job& job, Instant now) {
  std::vector<protocol::Hypothesis>& hypotheses = job.output().hypotheses;
  if (job.decoding().hypothesis == 0 && !hypotheses.empty()) {
    protocol::Hypothesis& best = hypotheses.front();  // a stop string may have cut the job's own output
    best.text = job.output().text;
    best.ids = job.output().ids;
    best.finish_reason = job.output().finish_reason;
  }
  if (job.decoding().hypothesis + 1 < hypotheses.size()) {
    ++job.decoding().hypothesis;
    tables_.tokenizers.ask_decode(job);
    return;
  }
  endings_.succeed(job, "", now);
}

}  // namespace optserve::scheduler
