// Questions to tokenizers: which job waits for which answer, which tokenizer was asked, and when it is asked again. A
// job has at most one question at a time, so tokens that arrive meanwhile travel together in the next one.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "scheduler/leases/service_table.h"
#include "scheduler/scheduler_options.h"

namespace optserve::scheduler {

class TokenizerPool {
 public:
  TokenizerPool(const SchedulerOptions& options, ServiceTable& services) : options_(options), services_(services) {}

  void ask_encode(Job& job);
  // Asks for the text of the output ids that are not decoded yet.
  void ask_decode(Job& job);
  // Sends what waits to tokenizers that can take it.
  void flush(Instant now, transport::Outbox& out);

  // An answered question.
  struct Answered {
    Job* job = nullptr;
    size_t ids = 0;      // decode: how many of the job's output ids were sent
    bool flush = false;  // decode: they were the last
  };
  // The question that `from` was asked under this ticket is answered. No job: the answer is late, repeated or invented.
  Answered take_answer(ServiceEntry& from, uint64_t ticket, bool decode);
  // The answer was valid: the tries of the job's next question count from zero.
  static void accept(Job& job) { job.question().tries_ = 0; }
  // The job ends: its open question is void.
  void drop(Job& job);
  // Asks the job's present question again, if possible of another tokenizer; `counts`: the tokenizer may have choked on
  // it. False: all tries are used up.
  bool ask_again(Job& job, bool counts);

  // Questions that this tokenizer will not answer; the caller asks them again or gives the jobs up.
  std::vector<Job*> take_questions(ServiceEntry& tokenizer);
  // Questions without an answer for too long.
  std::vector<Job*> take_overdue(Instant now);

  uint64_t retries() const { return retries_; }

 private:
  struct Sent {
    Instant overdue{};
    uint64_t ticket = 0;
    InstanceId tokenizer;
  };

  ServiceEntry* choose(const Job& job, Instant now) const;
  void send_encodes(Instant now, transport::Outbox& out);
  void send_decodes(Instant now, transport::Outbox& out);
  // Prompts of one model that wait for a tokenizer: by priority, then fair between tenants in bytes (each prompt gets
  // the virtual time at which it may start when it comes), then in order of acceptance.
  struct WaitingEncodes {
    using Turn = std::tuple<int32_t, double, uint64_t>;
    std::map<Turn, Job*> jobs;
    std::unordered_map<std::string, double> tenants;  // when the next one of each may start
    double time = 0;
    size_t tenants_max = 1'024;  // then those that are behind the time are forgotten
  };
  static WaitingEncodes::Turn turn_of(const Job& job) {
    return {-job.spec().priority, job.question().turn_, job.order};
  }
  // The present question of a job: the next of its output ids, or all of another hypothesis.
  static protocol::DecodeItem decode_item(const Job& job);
  void send_encodes_of(WaitingEncodes& waiting, Instant now, transport::Outbox& out);
  void mark_asked(Job& job, ServiceEntry& tokenizer, Instant now);
  Job* asked_with(const Sent& sent);
  void forget(Job& job);

  const SchedulerOptions& options_;
  ServiceTable& services_;
  std::map<std::string, WaitingEncodes> waiting_encodes_;  // by model
  std::vector<Job*> waiting_decodes_;                      // null: dropped
  std::deque<Sent> sent_encodes_, sent_decodes_;           // each in order of time
  std::multimap<Instant, Sent> sent_again_;                // by the time at which they are overdue
  uint64_t next_ticket_ = 1;
  uint64_t retries_ = 0;
};

}  // namespace optserve::scheduler
