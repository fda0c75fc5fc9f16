// The life of a job: its stages, the moves between them, who makes each move, and when. This page is complete, since
// nothing else changes a job's stage: the collaborators call JobTable, and a move that is not in the table below fails
// a check.
//
//     accepted ──► delayed ◄─────────────────────┐
//        │  │         │                          │ the attempt was lost
//        │  └► encoding                          │
//        │      │     │                          │
//        └──────┴─────┴──► waiting ──► leased ───┤
//                             ▲          │       │
//                             └──────────│───────┘
//                                        └──► decoding
//     every stage ──► ended
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace optserve::scheduler {

enum class Stage : uint8_t {
  kAccepted,  // is in the journal and in memory; nothing has been done for it yet
  kDelayed,   // waits for a moment: the one that its client set, or the end of the pause before another attempt
  kEncoding,  // its text is with a tokenizer, or waits for one
  kWaiting,   // is in the queue of its model until a worker has room for it
  kLeased,    // a worker group or converter works on it
  kDecoding,  // has all of its tokens; its last text is still with a tokenizer
  kEnded,     // has its terminal record; the object is deleted at the end of the turn
};
inline constexpr size_t kStages = 7;
std::string_view stage_name(Stage stage);

struct Move {
  Stage from;
  Stage to;
  std::string_view made_by;  // the collaborator
  std::string_view when;
};

inline constexpr auto kMoves = std::to_array<Move>({
    {Stage::kAccepted, Stage::kDelayed, "Preparation", "its client wants it to begin later"},
    {Stage::kAccepted, Stage::kEncoding, "Preparation", "its prompt or its bad words are text"},
    {Stage::kAccepted, Stage::kWaiting, "Preparation", "its prompt came as ids, or it is a conversion"},
    {Stage::kAccepted, Stage::kDecoding, "Preparation", "the journal had all of its tokens"},
    {Stage::kAccepted, Stage::kEnded, "Endings", "the journal shows no attempt left, or it does not fit its model"},

    {Stage::kDelayed, Stage::kEncoding, "Preparation", "its delay is over and its prompt is text"},
    {Stage::kDelayed, Stage::kWaiting, "Preparation", "its delay or pause is over, and its ids are known"},
    {Stage::kDelayed, Stage::kDecoding, "Preparation", "its delay is over, and the journal had all of its tokens"},
    {Stage::kDelayed, Stage::kEnded, "Endings", "cancelled, or its time ran out"},

    {Stage::kEncoding, Stage::kWaiting, "Preparation", "a tokenizer answered with its ids"},
    {Stage::kEncoding, Stage::kDecoding, "Preparation", "a tokenizer answered, and the journal had all of its tokens"},
    {Stage::kEncoding, Stage::kEnded, "Endings", "cancelled, its time ran out, too long, or no tokenizer answers"},

    {Stage::kWaiting, Stage::kLeased, "Leases", "it is its turn, and a worker has room"},
    {Stage::kWaiting, Stage::kEnded, "Endings", "cancelled, or its time ran out"},

    {Stage::kLeased, Stage::kWaiting, "Preparation", "its first attempt was lost"},
    {Stage::kLeased, Stage::kDelayed, "Dispatcher", "a later attempt was lost"},
    {Stage::kLeased, Stage::kDecoding, "TokenIntake", "its last token came"},
    {Stage::kLeased, Stage::kEnded, "Endings",
     "a stop string ended its text, it was converted, the worker refused it, no attempt is left, cancelled, or its "
     "time ran out"},

    {Stage::kDecoding, Stage::kEnded, "Endings",
     "its text is complete, no tokenizer answers, cancelled, or its time ran out"},
});

constexpr bool can_move(Stage from, Stage to) {
  return std::ranges::any_of(kMoves, [=](const Move& move) { return move.from == from && move.to == to; });
}

// The stage of one job.
class JobLife {
 public:
  Stage stage() const { return stage_; }
  bool has_ended() const { return stage_ == Stage::kEnded; }
  // The stage, or the one in which the job ended: what its followers are told in its last event.
  Stage last_open_stage() const { return last_open_; }

 private:
  friend class JobTable;  // counts the jobs in each stage
  // Fails a check if the move is not in kMoves.
  void move(Stage to);

  Stage stage_ = Stage::kAccepted;
  Stage last_open_ = Stage::kAccepted;
};

}  // namespace optserve::scheduler
