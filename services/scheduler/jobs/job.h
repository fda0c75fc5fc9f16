// An open job. What can happen to it is in job_life.h. Its data is in parts, and each part names the collaborator that
// writes it; everyone may read all of them.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/limits.h"
#include "protocol/message_types.h"
#include "scheduler/jobs/job_life.h"

namespace optserve::scheduler {

struct Client;
struct Job;
struct ModelQueue;
class ParkedJobs;
struct ServiceEntry;

// Written by job_times.h, and by the collaborators at the moments that it names.
struct JobTimes {
  Instant accepted_at{};
  Instant begins_at{};   // acceptance, or the end of its client's delay: what its limits count from
  Instant expires_at{};  // the end of its time in all
  Instant ready_at{};    // its prompt has ids
  Instant leased_at{};   // for the first time
  Instant first_token_at{};
  Instant last_token_at{};
  Instant delayed_until() const { return delayed_until_; }  // in Stage::kDelayed

 private:
  friend class JobTable;
  Instant delayed_until_{};
  std::multimap<Instant, Job*>::iterator deadline_;
};

// Written by Preparation, and `bytes_shown` by Admission.
struct JobPrompt {
  std::vector<TokenId> ids;
  size_t bytes_shown = 0;                          // of its text, to those who ask about the job
  std::vector<std::vector<TokenId>> bad_word_ids;  // of the bad words that are text
};

// Its place with the queue of its model.
class QueueSlot {
 public:
  enum class State : uint8_t { kOut, kExpected, kWaiting };

  ModelQueue* queue = nullptr;  // written by Admission
  int64_t cost = 1;             // tokens of prompt and output, estimated until the prompt has ids; by Preparation
  Instant hurry_at{};           // half of its time to start is over; by Preparation
  State state() const { return state_; }

 private:
  friend class FairQueue;
  State state_ = State::kOut;
  int64_t counted_cost_ = 0;  // what the queue counts for it

  friend class QueueBounds;
  size_t bytes_ = 0;    // of memory that are counted for it
  int64_t tokens_ = 0;  // that are counted for its tenant
};

// Its present lease; written by Leases.
struct JobLease {
  uint64_t number = 0;    // 0: none
  uint64_t sequence = 0;  // of its journal record
  ServiceEntry* worker = nullptr;
  Instant began_at{};

 private:
  friend class ModelQueues;    // what the worker's load counts for it
  int64_t kv_reserved_ = 0;    // tokens of its KV cache
  int64_t unprocessed_ = 0;    // tokens of the job's cost that are still to come
  int64_t prompt_tokens_ = 0;  // those of them that the first token of the attempt stands for
};

// All of its leases so far; written by Leases and Dispatcher.
struct JobAttempts {
  int32_t count = 0;                        // leases that were given and not taken back as the scheduler's fault
  int32_t crashes = 0;                      // starts of the scheduler that found it leased
  bool started = false;                     // has had a lease
  uint64_t last_lease = 0;                  // whose work its output is; 0: none since the last loss
  std::vector<std::string> losses;          // why attempts were lost, oldest first
  InstanceId avoid;                         // lost or failed the last attempt
  std::vector<protocol::JobAttempt> tries;  // since the start of this process, oldest first, kTriesMax at most

  static constexpr size_t kTriesMax = 2 * limits::kAttemptsMax;
  void begin_try(std::string service, int64_t began_ms);
  void end_try(int64_t ended_ms, std::string loss);  // if one goes on
};

// What the worker has made; written by TokenIntake, and the text by Decoding.
struct JobOutput {
  std::vector<TokenId> ids;
  std::vector<float> prompt_logprobs;
  std::vector<std::vector<sampling::TokenLogprob>> prompt_best;  // beside each of them, if the job asks for them
  std::vector<float> logprobs;  // these two: of the output's ids, if the job asks for them
  std::vector<std::vector<sampling::TokenLogprob>> best;
  sampling::FinishReason finish_reason = sampling::FinishReason::kNone;  // set once the tokens are complete
  std::vector<protocol::Hypothesis> hypotheses;                          // of a beam search, once they are known
  std::string text;
  size_t saved = 0;  // output ids in the journal
  Instant saved_at{};
  int64_t bytes_done = 0;  // these two: of a conversion
  int64_t bytes_total = 0;

  bool is_complete() const { return finish_reason != sampling::FinishReason::kNone; }
};

// How far its ids have become text; written by Decoding.
struct JobDecoding {
  protocol::Bytes state;  // of the tokenizer's text streamer
  size_t ids = 0;         // output ids whose text is in the output or held back in the state
  size_t hypothesis = 0;  // the one whose text is asked for; 0: the job's own output
};

// Its question to a tokenizer; there is at most one at a time.
class TokenizerQuestion {
 private:
  friend class TokenizerPool;
  friend class ParkedJobs;
  enum class State : uint8_t { kNone, kWaiting, kAsked };
  State state_ = State::kNone;
  bool decode_ = false;
  int tries_ = 0;        // questions that were not answered
  uint64_t ticket_ = 0;  // of the present one
  ServiceEntry* tokenizer_ = nullptr;
  InstanceId avoid_;  // did not answer the last time
  size_t cost_ = 0;   // bytes of text, for the tokenizer's window
  double turn_ = 0;   // encode: its place among those of its priority
  size_t ids_ = 0;    // decode: how many output ids were sent
  bool flush_ = false;
  size_t index_ = 0;  // decode, waiting: its place in the pool's list
};

// A connection that wants the job's events.
struct Subscription {
  std::shared_ptr<Client> client;
  uint64_t text_offset = 0;  // of the next piece
  uint64_t after = 0;        // nothing may leave before this journal sequence number is durable
  uint64_t text_digest = 0;  // of what the client has before that piece, as long as it has to be compared; else 0
  bool restarts = false;     // the next piece is the first of a text that begins anew
};

// Who follows it and what they know; written by ClientStreams, Followers and Places.
struct JobFollowers {
  std::vector<Subscription> subscriptions;
  bool events_pending = false;
  bool tell_anyway = false;    // the next event goes out even if it has no text
  uint32_t told_position = 0;  // its place in the queue, as its followers know it
  int64_t told_eta_ms = -1;
  bool place_pending = false;  // its followers are to be told its place
  bool watched = false;        // has a time for its next sign of life
  Instant abandoned_at{};      // nobody follows it: when it is cancelled
};

// What of a job is not needed as long as it waits behind many others; it may be in a file then (parked_jobs.h).
struct JobBody {
  std::string payload_sha256;  // these two: set once, by Admission
  protocol::JobSpec spec;
  JobPrompt prompt;
  JobLease lease;
  JobAttempts attempts;
  JobOutput output;
  JobDecoding decoding;
  TokenizerQuestion question;
  JobFollowers followers;

 private:
  friend class ParkedJobs;
  std::list<Job*>* resting_in_ = nullptr;  // these two: among the jobs whose bodies may be parked
  std::list<Job*>::iterator resting_at_;
};

struct Job {
  Job() : body_(std::make_unique<JobBody>()) {}

  // Set once, by Admission.
  JobId id;
  uint64_t order = 0;              // of acceptance
  uint64_t accepted_sequence = 0;  // of its journal record; 0: it was recovered, so the record is on disk
  int64_t accepted_wall_ms = 0;    // for people

  JobLife life;
  JobTimes times;
  QueueSlot slot;

  // Its body is read back if it is parked. References to it are valid until the end of the turn.
  JobBody& body() {
    if (body_ == nullptr) [[unlikely]] {
      load_body();
    }
    return *body_;
  }
  const JobBody& body() const { return const_cast<Job*>(this)->body(); }
  bool is_parked() const { return body_ == nullptr; }
  std::string& payload_sha256() { return body().payload_sha256; }
  const std::string& payload_sha256() const { return body().payload_sha256; }
  protocol::JobSpec& spec() { return body().spec; }
  const protocol::JobSpec& spec() const { return body().spec; }
  JobPrompt& prompt() { return body().prompt; }
  const JobPrompt& prompt() const { return body().prompt; }
  JobLease& lease() { return body().lease; }
  const JobLease& lease() const { return body().lease; }
  JobAttempts& attempts() { return body().attempts; }
  const JobAttempts& attempts() const { return body().attempts; }
  JobOutput& output() { return body().output; }
  const JobOutput& output() const { return body().output; }
  JobDecoding& decoding() { return body().decoding; }
  const JobDecoding& decoding() const { return body().decoding; }
  TokenizerQuestion& question() { return body().question; }
  const TokenizerQuestion& question() const { return body().question; }
  JobFollowers& followers() { return body().followers; }
  const JobFollowers& followers() const { return body().followers; }

  int64_t age_ms(Instant now) const {
    return std::chrono::duration_cast<milliseconds>(now - times.accepted_at).count();
  }
  Stage stage() const { return life.stage(); }
  bool is_generation() const { return spec().kind == protocol::JobKind::kGenerate; }
  bool wants_logprobs() const { return spec().sampling.logprobs >= 0; }
  bool searches_beams() const { return spec().sampling.is_beam_search(); }
  // Some log-probabilities of the prompt that the job asks for have not come yet.
  bool lacks_prompt_logprobs() const {
    return spec().prompt_logprobs && output().prompt_logprobs.size() + 1 < prompt().ids.size();
  }
  // Tokens that each output token costs.
  int64_t tokens_each() const { return spec().sampling.beam_width; }
  bool only_scores() const { return is_generation() && spec().max_new_tokens == 0; }
  bool is_cancelled_when_left() const { return spec().on_disconnect == protocol::OnDisconnect::kCancel; }
  // The state as clients are told it; for a job that has just ended, its state before that.
  protocol::JobState state() const {
    const Stage stage = life.last_open_stage();
    return stage == Stage::kLeased || stage == Stage::kDecoding ? protocol::JobState::kRunning
                                                                : protocol::JobState::kQueued;
  }
  // How many of an output's ids have text: a final end-of-text id has none, and a stop id where it is not wanted.
  size_t ids_with_text() const { return ids_with_text(output().ids, output().finish_reason); }
  size_t ids_with_text(const std::vector<TokenId>& ids, sampling::FinishReason reason) const {
    const bool hidden = reason == sampling::FinishReason::kEndOfText ||
                        (reason == sampling::FinishReason::kStop && !spec().include_stop);
    return ids.size() - (hidden ? 1 : 0);
  }

 private:
  friend class ParkedJobs;
  void load_body();

  std::unique_ptr<JobBody> body_;  // nullptr: it is parked, and the other two say where
  ParkedJobs* parked_in_ = nullptr;
  uint64_t parked_at_ = 0;
};

}  // namespace optserve::scheduler
