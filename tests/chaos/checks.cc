#include "checks.h"

#include <algorithm>
#include <set>

#include "job_plan.h"

namespace optserve::chaos {
namespace {

// One job of one client.
class JobCheck {
 public:
  JobCheck(std::string name, const JobStory& story, PlannedJob plan, std::vector<std::string>& violations)
      : name_(std::move(name)), story_(story), plan_(std::move(plan)), violations_(violations) {}

  void run(const Evidence& evidence) {
    check_acceptance();
    check_streams();
    if (story_.ids.empty()) {
      if (story_.codes.empty()) complain("was neither accepted nor refused");
      return;
    }
    const Final* final = story_.final();
    if (final == nullptr) return complain("was accepted and never ended");
    check_final(*final, evidence.references.at(plan_.variant));
    const auto answer = evidence.answers.find(story_.ids.front());
    if (answer == evidence.answers.end() || !answer->second.found) {
      complain("is lost: " + (answer == evidence.answers.end() ? "not asked for" : answer->second.why_not));
    } else {
      check_answer(*final, answer->second);
    }
  }

 private:
  void complain(const std::string& what) { violations_.push_back(name_ + " " + what); }

  void check_acceptance() {
    if (std::set<std::string>(story_.ids.begin(), story_.ids.end()).size() > 1) {
      complain("has several ids under one key");
    }
    for (const std::string& outcome : story_.conflicts) {
      if (outcome != "idempotency_conflict") complain("with another payload under its key: " + outcome);
    }
    for (const std::string& code : story_.codes) {
      const bool is_for_now = code == "busy" || code == "unavailable" || code == "storage_full";
      const bool is_for_time = code == "deadline_exceeded" && plan_.is_short_lived;
      if (!is_for_now && !is_for_time) complain("was refused: " + code);
    }
  }

  // Each time a job is followed, every position must come once, and the text must always be the same.
  void check_streams() {
    size_t finals = 0;
    for (const Follow& follow : story_.follows) {
      uint64_t expected = follow.from;
      for (const Piece& piece : follow.pieces) {
        if (piece.offset != expected) {
          complain("has a " + std::string(piece.offset > expected ? "gap" : "repeat") + " at byte " +
                   std::to_string(expected));
        }
        expected = piece.offset + piece.text.size();
        take(piece);
      }
      if (follow.piece_after_final) complain("got text after its end");
      if (!follow.lost.empty()) complain("was lost to its client: " + follow.lost);
      finals += follow.finals.size();
    }
    if (finals > 1) complain("ended " + std::to_string(finals) + " times");
  }

  void take(const Piece& piece) {
    if (text_.size() < piece.offset) return;  // this is a gap, which is reported elsewhere
    const size_t known = std::min(text_.size() - piece.offset, piece.text.size());
    if (text_.compare(piece.offset, known, piece.text, 0, known) != 0) complain("changed text already sent");
    text_ += piece.text.substr(known);
  }

  void check_final(const Final& final, const std::string& reference) {
    // The result of a job that failed may have less text than was streamed: after a restart of the scheduler it lacks
    // what a tokenizer has not decoded again.
    const bool is_start = final.state != "succeeded" && text_.compare(0, final.text.size(), final.text) == 0;
    if (text_ != final.text && !is_start) {
      complain("streamed '" + text_ + "' and ended as " + final.state + " with '" + final.text + "'");
    }
    if (final.attempts > plan_.spec.max_attempts) complain("had " + std::to_string(final.attempts) + " attempts");
    if (final.state == "succeeded") {
      if (final.text != reference) complain("has the text '" + final.text + "' instead of '" + reference + "'");
    } else if (reference.compare(0, text_.size(), text_) != 0) {
      complain("has the text '" + text_ + "', which does not begin '" + reference + "'");
    }
    const bool may_be = final.state == "succeeded" || final.state == "dead" ||
                        (final.state == "expired" && plan_.is_short_lived) ||
                        (final.state == "cancelled" && story_.cancel_asked);
    if (!may_be) complain("ended as " + final.state + ": " + final.message);
    for (const std::string& state : story_.cancel_states) {
      if (state != final.state) complain("was " + state + " to cancel and ended as " + final.state);
    }
  }

  void check_answer(const Final& final, const Answer& answer) {
    if (answer.state != final.state) complain("ended as " + final.state + " and is stored as " + answer.state);
    if (answer.text != final.text) complain("ended with '" + final.text + "' and is stored with '" + answer.text + "'");
    if (answer.attempts != final.attempts) complain("is stored with another number of attempts");
  }

  std::string name_;
  const JobStory& story_;
  PlannedJob plan_;
  std::vector<std::string>& violations_;
  std::string text_;
};

template <class F>
void for_each_job(const std::vector<Ledger>& ledgers, F&& visit) {
  for (size_t client = 0; client < ledgers.size(); ++client) {
    for (const auto& [number, story] : ledgers[client]) visit(client, number, story);
  }
}

Times times_of(std::vector<int64_t> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {static_cast<int64_t>(values.size()), values[(values.size() - 1) / 2], values.back()};
}

// The moments at which there was news of the job, in order.
std::vector<int64_t> news_of(const JobStory& story) {
  std::vector<int64_t> times;
  if (!story.ids.empty()) times.push_back(story.accepted_ms);
  for (const Follow& follow : story.follows) {
    for (const Piece& piece : follow.pieces) times.push_back(piece.at_ms);
    for (const Final& final : follow.finals) times.push_back(final.at_ms);
  }
  std::sort(times.begin(), times.end());
  return times;
}

int64_t longest_gap(const std::vector<int64_t>& times) {
  int64_t longest = 0;
  for (size_t i = 1; i < times.size(); ++i) longest = std::max(longest, times[i] - times[i - 1]);
  return longest;
}

bool has_lost_a_worker(const JobStory& story) {
  const Final* final = story.final();
  return final != nullptr && (final->losses > 0 || final->attempts > 1);
}

struct Span {
  int64_t from_ms = 0, to_ms = 0;
};

// The times in which a fault hit the scheduler or this client, in order and without overlap.
std::vector<Span> faults_of(size_t client, const std::vector<FaultRecord>& records) {
  std::vector<Span> spans;
  for (const FaultRecord& record : records) {
    if (record.target != "scheduler" && record.target != "client-" + std::to_string(client)) continue;
    spans.push_back({record.at_ms, record.at_ms + record.lasts_ms});
  }
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.from_ms < b.from_ms; });
  for (size_t i = 1; i < spans.size(); ++i) {
    spans[i].from_ms = std::max(spans[i].from_ms, spans[i - 1].to_ms);
    spans[i].to_ms = std::max(spans[i].to_ms, spans[i].from_ms);
  }
  return spans;
}

int64_t longest_gap_outside(const std::vector<int64_t>& times, const std::vector<Span>& spans) {
  int64_t longest = 0;
  for (size_t i = 1; i < times.size(); ++i) {
    int64_t gap = times[i] - times[i - 1];
    for (const Span& span : spans) {
      gap -= std::max<int64_t>(0, std::min(span.to_ms, times[i]) - std::max(span.from_ms, times[i - 1]));
    }
    longest = std::max(longest, gap);
  }
  return longest;
}

}  // namespace

std::vector<std::string> check_jobs(const Evidence& evidence) {
  std::vector<std::string> violations;
  for_each_job(evidence.ledgers, [&](size_t client, uint64_t number, const JobStory& story) {
    const std::string name = "client " + std::to_string(client) + " job " + std::to_string(number) +
                             (story.ids.empty() ? "" : " (" + story.ids.front() + ")");
    JobCheck(name, story, plan_job(evidence.seed, static_cast<int>(client), number), violations).run(evidence);
  });
  return violations;
}

Totals count_jobs(const std::vector<Ledger>& ledgers) {
  Totals totals;
  for_each_job(ledgers, [&](size_t, uint64_t, const JobStory& story) {
    ++totals.submitted;
    totals.undecided += story.no_answers;
    totals.conflicts += static_cast<int64_t>(story.conflicts.size());
    for (const Follow& follow : story.follows) totals.pieces += static_cast<int64_t>(follow.pieces.size());
    if (story.ids.empty()) {
      ++totals.refused[story.codes.empty() ? "no answer" : story.codes.back()];
      return;
    }
    ++totals.accepted;
    totals.repeated += static_cast<int64_t>(story.ids.size()) - 1;
    const Final* final = story.final();
    ++totals.finals[final == nullptr ? "none" : final->state];
    if (has_lost_a_worker(story)) ++totals.retried;
  });
  return totals;
}

int64_t longest_silence_ms(const std::vector<Ledger>& ledgers, int64_t from_ms, int64_t to_ms) {
  std::vector<int64_t> times = {from_ms, to_ms};
  for_each_job(ledgers, [&](size_t, uint64_t, const JobStory& story) {
    const std::vector<int64_t> news = news_of(story);
    std::copy_if(news.begin(), news.end(), std::back_inserter(times),
                 [=](int64_t at) { return at > from_ms && at < to_ms; });
  });
  std::sort(times.begin(), times.end());
  return longest_gap(times);
}

Times silence_of_retried(const std::vector<Ledger>& ledgers, const std::vector<FaultRecord>& records) {
  std::vector<std::vector<Span>> spans;
  for (size_t client = 0; client < ledgers.size(); ++client) spans.push_back(faults_of(client, records));
  std::vector<int64_t> gaps;
  for_each_job(ledgers, [&](size_t client, uint64_t, const JobStory& story) {
    if (has_lost_a_worker(story)) gaps.push_back(longest_gap_outside(news_of(story), spans[client]));
  });
  return times_of(std::move(gaps));
}

std::map<std::string, Times> recovery_times(const std::vector<Ledger>& ledgers,
                                            const std::vector<FaultRecord>& records) {
  std::map<std::string, std::vector<int64_t>> waits;
  for (const FaultRecord& record : records) {
    int64_t first = -1;
    for_each_job(ledgers, [&](size_t client, uint64_t, const JobStory& story) {
      if (record.target.starts_with("client-") && record.target != "client-" + std::to_string(client)) return;
      const Final* final = story.final();
      if (final == nullptr || final->state != "succeeded" || story.accepted_ms < record.at_ms) return;
      const int64_t wait = final->at_ms - record.at_ms;
      if (first < 0 || wait < first) first = wait;
    });
    if (first >= 0) waits[record.fault].push_back(first);
  }
  std::map<std::string, Times> result;
  for (auto& [fault, values] : waits) result[fault] = times_of(std::move(values));
  return result;
}

}  // namespace optserve::chaos
