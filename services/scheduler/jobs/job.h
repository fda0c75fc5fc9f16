// An open job, from its acceptance to its terminal record.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "protocol/message_types.h"

namespace optserve::scheduler {

inline constexpr TokenId kEndOfText = 2;  // </s>, also the first token of every prompt

struct Client;
struct ModelQueue;
struct ServiceEntry;
struct Job;

enum class Stage : uint8_t {
  kEncoding,  // its text is with a tokenizer, or waits for one
  kDelayed,   // waits for the time that its client set, or before another attempt
  kWaiting,   // in the queue of its model
  kLeased,    // with a worker group or converter
  kDecoding,  // all tokens are here, the last text is not
};

// Where a job stands with the queue of its model.
enum class QueueState : uint8_t { kOut, kExpected, kWaiting };

// A connection that wants the job's events.
struct Subscription {
  std::shared_ptr<Client> client;
  uint64_t text_offset = 0;  // of the next piece
  uint64_t after = 0;        // nothing may leave before this journal sequence number is durable
};

// The job's question to a tokenizer; at most one at a time.
struct Question {
  enum class State : uint8_t { kNone, kWaiting, kAsked };
  State state = State::kNone;
  bool decode = false;
  int tries = 0;        // questions that were not answered
  uint64_t ticket = 0;  // of the present one
  ServiceEntry* tokenizer = nullptr;
  InstanceId avoid;  // did not answer the last time
  size_t cost = 0;   // bytes of text, for the tokenizer's window
  double turn = 0;   // encode: its place among those of its priority
  size_t ids = 0;    // decode: how many output ids were sent
  bool flush = false;
  size_t index = 0;  // waiting decodes: place in the pool's list
};

struct Job {
  JobId id;
  uint64_t order = 0;
  uint64_t accepted_sequence = 0;  // of its journal record; 0: recovered, on disk for long
  std::string payload_sha256;
  int64_t accepted_wall_ms = 0;
  protocol::JobSpec spec;
  Stage stage = Stage::kEncoding;
  bool ended = false;  // has its terminal record; lives to the end of the turn

  std::vector<TokenId> prompt_ids;
  std::vector<float> prompt_logprobs;
  std::vector<std::vector<TokenId>> bad_word_ids;  // of spec.bad_words
  std::vector<TokenId> output;
  // Of the output's ids, if the job asks for them.
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> best;
  protocol::FinishReason finish_reason = protocol::FinishReason::kNone;  // set once the tokens are complete
  std::vector<protocol::Hypothesis> hypotheses;                          // of a beam search, once they are known
  size_t hypothesis = 0;                                                 // whose text is asked for; 0: the job's own

  std::string text;
  protocol::Bytes decode_state;
  size_t decoded = 0;      // output ids whose text is in `text` or held back in the state
  size_t stop_within = 0;  // a stop string is known to end within the next so many ids; 0: not known
  Question question;

  uint64_t lease = 0;           // number of the present lease; 0: none
  uint64_t lease_sequence = 0;  // of its journal record
  ServiceEntry* worker = nullptr;
  int64_t kv_reserved = 0;
  int32_t attempts = 0;
  int32_t crashes = 0;
  uint64_t last_lease = 0;          // whose work its output is; 0: none since the last loss
  bool started = false;             // has had a lease
  std::vector<std::string> losses;  // why attempts were lost, oldest first
  InstanceId avoid;                 // lost or failed the last attempt

  int64_t progress_done = 0;  // conversions: bytes
  int64_t progress_total = 0;
  size_t progress_saved = 0;  // output ids in the journal
  Instant progress_saved_at{};

  Instant accepted_at{}, ready_at{}, leased_at{}, first_token_at{};
  Instant begins_at{};      // acceptance, or the end of its delay: what its times count from
  Instant expires_at{};     // total
  Instant attempt_at{};     // start of the present attempt
  Instant hurry_at{};       // half of its time to start is over
  Instant delayed_until{};  // in Stage::kDelayed
  std::multimap<Instant, Job*>::iterator deadline;

  ModelQueue* queue = nullptr;
  QueueState queue_state = QueueState::kOut;
  int64_t cost = 1;            // tokens of its prompt and its output, estimated until the prompt has ids
  int64_t queued_cost = 0;     // what the queue counts for it
  int64_t unprocessed = 0;     // leased: tokens of its cost that are still to come
  int64_t prompt_share = 0;    // leased: those of them that the first token of the attempt stands for
  size_t bytes = 0;            // of memory that are counted for it
  uint32_t told_position = 0;  // to its followers
  int64_t told_eta_ms = -1;
  bool place_pending = false;  // followers are to be told where it stands

  std::vector<Subscription> subscriptions;
  bool events_pending = false;
  bool tell_anyway = false;  // the next event goes out even if it has no text
  bool watched = false;      // has a time for its next sign of life
  Instant abandoned_at{};    // nobody follows it: when it is cancelled

  bool is_generation() const { return spec.kind == protocol::JobKind::kGenerate; }
  bool wants_logprobs() const { return spec.sampling.logprobs >= 0; }
  bool searches_beams() const { return spec.sampling.is_beam_search(); }
  // Tokens that each output token costs.
  int64_t tokens_each() const { return spec.sampling.beam_width; }
  bool only_scores() const { return is_generation() && spec.max_new_tokens == 0; }
  bool is_cancelled_when_left() const { return spec.on_disconnect == protocol::OnDisconnect::kCancel; }
  protocol::JobState state() const {
    return stage == Stage::kLeased || stage == Stage::kDecoding ? protocol::JobState::kRunning
                                                                : protocol::JobState::kQueued;
  }
  // Output ids that have text: a final end-of-text id has none, and a stop id where it is not wanted.
  size_t ids_with_text() const { return with_text(output, finish_reason); }
  size_t with_text(const std::vector<TokenId>& ids, protocol::FinishReason reason) const {
    const bool hidden =
        reason == protocol::FinishReason::kEndOfText || (reason == protocol::FinishReason::kStop && !spec.include_stop);
    return ids.size() - (hidden ? 1 : 0);
  }
};

}  // namespace optserve::scheduler
