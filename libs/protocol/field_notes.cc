// What the fields of the protocol mean, for people who write a client from the document.
#include "base/limits.h"
#include "protocol/protocol_description.h"

namespace optserve::protocol {
namespace {

constexpr FieldBounds within(double min, double max) { return {FieldBounds::Of::kNumber, min, max}; }
constexpr FieldBounds bytes_of(double min, double max) { return {FieldBounds::Of::kBytes, min, max}; }
constexpr FieldBounds name_of(double min, double max) { return {FieldBounds::Of::kName, min, max}; }
constexpr FieldBounds entries_to(double max) { return {FieldBounds::Of::kEntries, 0, max}; }

constexpr double kIds = limits::kContextTokensMax;
constexpr double kJobMs = limits::kJobTtlMsMax;

std::vector<FieldNote> notes_of_jobs() {
  return {
      {"JobSpec.key", "idempotency key, unique for each tenant; the same key with the same job is the same job",
       name_of(1, limits::kKeyBytesMax)},
      {"JobSpec.tenant", "whose share of the queue it uses; empty: the default tenant",
       name_of(0, limits::kTenantBytesMax)},
      {"JobSpec.kind", "what is to be done; `convert` says how, of a conversion"},
      {"JobSpec.model", "which model; empty only of a conversion", name_of(1, limits::kModelNameBytesMax)},
      {"JobSpec.prompt", "text; either this or `prompt_ids`", bytes_of(0, limits::kPromptBytesMax)},
      {"JobSpec.prompt_ids", "the prompt as ids, with the model's leading id", entries_to(kIds)},
      {"JobSpec.max_new_tokens", "longest output; 0 only with `prompt_logprobs`, which then only scores the prompt",
       within(0, kIds)},
      {"JobSpec.stop", "texts that end the output, of 1 to 64 bytes each", entries_to(limits::kStopStringsMax)},
      {"JobSpec.prompt_logprobs", "report the log-probability of each id of the prompt but the first"},
      {"JobSpec.priority", "higher ones first", within(0, limits::kPriorityMax)},
      {"JobSpec.max_attempts", "how often it is tried if its worker is lost", within(1, limits::kAttemptsMax)},
      {"JobSpec.ttl_ms", "time from acceptance, or from the end of its delay, after which it expires",
       within(limits::kJobTtlMsMin, kJobMs)},
      {"JobSpec.result_ttl_ms", "how long result and key are kept after its end", within(0, limits::kResultTtlMsMax)},
      {"JobSpec.convert", "the conversion; only with `kind` 2"},
      {"JobSpec.group", "jobs that are watched and cancelled together; per tenant", name_of(0, limits::kGroupBytesMax)},
      {"JobSpec.delay_ms", "time from acceptance before which it is not started", within(0, limits::kJobDelayMsMax)},
      {"JobSpec.queue_ms", "longest wait for its first start; 0: `ttl_ms` alone", within(0, kJobMs)},
      {"JobSpec.run_ms", "longest duration of one attempt; 0: `ttl_ms` alone", within(0, kJobMs)},
      {"JobSpec.on_disconnect", "what happens when nobody follows it any more"},
      {".traceparent", "the trace that the job belongs to, in the form of W3C Trace Context 00; empty: none"},
      {".allowed_ids", "only these ids are drawn; empty: all"},
      {".logit_bias", "added to the logits of single ids"},
      {".bad_word_ids", "sequences of ids that are not completed"},
      {".stop_ids", "ids that end the output", entries_to(limits::kStopIdsMax)},
      {".top_p_reset_ids", "`top_p` starts again after one of them"},
      {"JobSpec.bad_words", "texts that must not occur in the output, of 1 to 64 bytes each",
       entries_to(limits::kBadWordsMax)},
      {"JobSpec.include_stop", "whether what ended the output is part of its text"},
      {"JobSpec.prompt_best", "with `prompt_logprobs`: how many of the best ids at each place of the prompt",
       within(0, limits::kTopLogprobsMax)},
      {"TokenBias.id", "which id"},
      {"TokenBias.bias", "-100 to 100; at -100 the id is not drawn"},
      {"ConvertSpec.source", "folder, file or glob in the converter's file system, 1 to 4,096 bytes without NUL"},
      {"ConvertSpec.destination", "folder to create there, 1 to 4,096 bytes without NUL"},
      {"ConvertSpec.dtype", "fp32, fp16, bf16 or keep"},
      {"ConvertSpec.shards", "how many files; 0: the converter chooses; at most 64"},
      {"ConvertSpec.!quantize", "none (or empty), int8, int8-mse, fp8 or int4"},
      {"ConvertSpec.!verify", "compare the result with the source; the job fails if they differ"},
  };
}

std::vector<FieldNote> notes_of_results() {
  return {
      {"JobResult.job", "the job's id"},
      {"JobResult.key", "as submitted"},
      {"JobResult.state", "the result is final when this is `succeeded` or a later value"},
      {"JobResult.finish_reason", "why the output ended"},
      {"JobResult.error", "why it did not succeed; nil of a job that succeeded or goes on"},
      {"JobResult.message", "the same for people; of a conversion what was written"},
      {"JobResult.text", "the output alone, without prompt and stop string"},
      {"JobResult.ids", "of the output, with a final end-of-text id"},
      {"JobResult.prompt_logprobs", "of the prompt's ids from the second one on, if asked for"},
      {"JobResult.prompt_tokens", "ids of the prompt"},
      {"JobResult.attempts", "how often it was started"},
      {".progress_done", "tokens, or bytes of a conversion"},
      {".progress_total", "of how many"},
      {"JobResult.timings", "time spent in each stage"},
      {"JobResult.tenant", "as submitted"},
      {"JobResult.group", "as submitted"},
      {"JobResult.losses", "why each lost attempt was lost, oldest first"},
      {".position", "of a queued job: how many would start before it"},
      {".eta_ms", "expected wait until a queued job starts; -1: not known"},
      {"JobResult.logprobs", "if asked for: of each id of the output"},
      {"JobResult.best", "if asked for: the best ids at each place of the output"},
      {"JobResult.hypotheses", "of a beam search, best first; `text` and `ids` are those of the first"},
      {"JobResult.prompt_ids", "with `prompt_logprobs`: all ids of the prompt"},
      {"JobResult.prompt_best", "with `prompt_best`: the best ids at the place of each of `prompt_logprobs`"},
      {"JobResult.kind", "what it is"},
      {"JobResult.prompt", "the beginning of a text prompt, as much as the scheduler keeps; only in `JobStatus`"},
      {"JobResult.tries", "oldest first; those before the scheduler's last start are missing"},
      {"JobAttempt.number", "from 1; one that does not count has the number of the next"},
      {"JobAttempt.began_ms", "from the job's acceptance to its dispatch"},
      {"JobAttempt.ended_ms", "from the job's acceptance to its loss or the job's end; -1: it goes on"},
      {"JobAttempt.service", "which worker or converter had it"},
      {"JobAttempt.loss", "why it was lost; empty: it was not"},
      {"Timings.encode_ms", "text to ids"},
      {"Timings.queue_ms", "waiting"},
      {"Timings.first_token_ms", "from acceptance to its first token"},
      {"Timings.run_ms", "from its last start to its end"},
      {"Timings.total_ms", "from acceptance to its end"},
      {"Hypothesis.ids", "all output ids, with the one that ended it"},
      {"Hypothesis.logprob", "sum of their log-probabilities"},
      {"Hypothesis.score", "by which hypotheses are ordered"},
      {"Hypothesis.finish_reason", "why it ended"},
      {"Hypothesis.text", "of the ids"},
      {"TokenLogprob.id", "which id"},
      {"TokenLogprob.logprob", "of it, under the model's own distribution"},
  };
}

std::vector<FieldNote> notes_of_client_messages() {
  return {
      {".request", "chosen by the asker, never 0 in a question, and returned in the answer"},
      {".term", "grows with each start of the scheduler; random with `--volatile`"},
      {".message", "for people"},
      {".retry_after_ms", "of `busy`, `storage_full` and `deadline_exceeded`: when to ask again; 0: not known"},
      {"Submit.stream", "send the jobs' events and results to this connection"},
      {"Submit.jobs", "1 to 256"},
      {"SubmitReply.outcomes", "one for each job, in the order of the jobs"},
      {"SubmitOutcome.job", "the id of a job that is accepted and durable; nil of a refused one"},
      {"SubmitOutcome.error", "why it was refused; nil of an accepted one"},
      {"SubmitOutcome.position", "jobs that would start before it"},
      {"SubmitOutcome.duplicate", "the key was known, and `job` is the earlier job"},
      {"SubmitOutcome.unfollowed", "`stream` was asked for, and the job has its maximum of followers"},
      {"Attach.job", "which job"},
      {"Attach.text_offset", "how much of the text this client has"},
      {"Attach.text_digest", "which text that is; 0: not told"},
      {"JobEvents.events", "of one job in order"},
      {"JobEvent.job", "which job"},
      {"JobEvent.text_offset", "bytes of output before this piece"},
      {"JobEvent.text", "whole characters; may be empty"},
      {"JobEvent.tokens", "output tokens so far"},
      {"JobEvent.state", "of the job"},
      {"JobEvent.restarted", "what this client has is not the job's text, which begins anew with this piece"},
      {"Credit.consumed", "stream cost of all that this client has taken, on any connection"},
      {"Credit.window", "how much more may be under way, 4,096 to 196,608"},
      {"JobFinished.result", "is final"},
      {"Cancel.job", "which job"},
      {"GetJob.job", "which job"},
      {"JobStatus.result", "final or not"},
      {"Refused.code", "see the error codes"},
      {"Ping.number", "returned in `Pong`"},
      {"Pong.number", "that of the `Ping`"},
      {"Pong.waiting", "for services: jobs that this one could run"},
  };
}

std::vector<FieldNote> notes_of_operator_messages() {
  return {
      {"ServiceStatus.kind", "tokenizer, worker or converter"},
      {"ServiceStatus.instance", "id of this start of the process, as hexadecimal text"},
      {"ServiceStatus.name", "for people: host and process id"},
      {"ServiceStatus.models", "what it serves"},
      {"ServiceStatus.running", "jobs that it has"},
      {"ServiceStatus.capacity", "jobs that it may have"},
      {"ServiceStatus.silent_ms", "since its last message"},
      {"ServiceStatus.draining", "it wants no new work"},
      {"ServiceStatus.paused", "an operator gives it no new work"},
      {"ServiceStatus.slots", "of `capacity`, jobs that it computes at a time; the others wait with it. 0: `capacity`"},
      {"ModelStatus.name", "of the model"},
      {"ModelStatus.mode", "of its queue"},
      {"ModelStatus.queued", "jobs"},
      {"ModelStatus.running", "jobs"},
      {"ModelStatus.tokens_per_second", "measured while there was work; 0: not yet"},
      {"SystemStatus.durable", "false: the scheduler has no journal"},
      {"SystemStatus.draining", "the scheduler is stopping"},
      {"SystemStatus.queued", "jobs"},
      {"SystemStatus.running", "jobs"},
      {"SystemStatus.finished", "jobs that succeeded since the start"},
      {"SystemStatus.failed", "jobs that failed or are dead, since the start"},
      {"SystemStatus.services", "those that are registered"},
      {"SystemStatus.mode", "of the whole queue"},
      {"SystemStatus.read_only", "the disk of the journal is full"},
      {"SystemStatus.models", "with their queues"},
      {"SystemStatus.cancelled", "jobs, since the start"},
      {"SystemStatus.expired", "jobs, since the start"},
      {"Control.action", "what to do"},
      {"Control.scope", "with what"},
      {"Control.name", "of the model; instance or name of the service; empty for the whole queue"},
      {".filter", "all conditions that are set must hold"},
      {"JobFilter.job", "nil: any"},
      {"JobFilter.state", "nil: any"},
      {"JobFilter.tenant", "nil: any"},
      {"JobFilter.model", "empty: any"},
      {"JobFilter.group", "empty: any"},
      {"ListJobs.after", "`order` of the last job of the list before; 0: the list begins"},
      {"ListJobs.newest_first", "the list goes from the newest job to older ones"},
      {"ListJobs.limit", "1 to 1,000"},
      {"JobSummary.job", "its id"},
      {"JobSummary.order", "grows with acceptance"},
      {"JobSummary.key", "as submitted"},
      {"JobSummary.tenant", "as submitted"},
      {"JobSummary.group", "as submitted"},
      {"JobSummary.model", "as submitted"},
      {"JobSummary.state", "of the job"},
      {"JobSummary.attempts", "how often it was started"},
      {"JobSummary.accepted_wall_ms", "when it was accepted, since 1970"},
      {"JobSummary.kind", "what it is"},
      {"JobList.jobs", "in order of acceptance, or newest first"},
      {"JobList.more", "ask again with `after`"},
      {"Requeue.job", "which dead job"},
      {"Purged.jobs", "how many were forgotten"},
      {"GetGroup.tenant", "whose group"},
      {"GetGroup.group", "its name"},
      {"GetGroup.cancel", "first cancel the jobs that are open"},
      {"GroupStatus.open", "jobs that have not ended"},
      {"GroupStatus.succeeded", "jobs whose results are still kept"},
      {"GroupStatus.failed", "the same"},
      {"GroupStatus.cancelled", "the same"},
      {"GroupStatus.expired", "the same"},
      {"GroupStatus.dead", "the same"},
      {"BackedUp.file", "its name in the backup folder of the scheduler"},
      {"BackedUp.bytes", "its size"},
  };
}

}  // namespace

const std::vector<FieldNote>& field_notes() {
  static const std::vector<FieldNote> kNotes = [] {
    std::vector<FieldNote> all = notes_of_jobs();
    for (auto* more : {&notes_of_results, &notes_of_client_messages, &notes_of_operator_messages}) {
      for (const FieldNote& note : more()) all.push_back(note);
    }
    return all;
  }();
  return kNotes;
}

const FieldNote* find_note(std::string_view structure, std::string_view field) {
  const FieldNote* general = nullptr;
  for (const FieldNote& note : field_notes()) {
    const size_t dot = note.field.find('.');
    if (note.field.substr(dot + 1) != field) continue;
    if (note.field.substr(0, dot) == structure) return &note;
    if (dot == 0) general = &note;
  }
  return general;
}

}  // namespace optserve::protocol
