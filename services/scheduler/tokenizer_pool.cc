#include "scheduler/tokenizer_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace optserve::scheduler {
namespace {

// Text that one tokenizer may have before it: a Decode behind it waits no longer than a few milliseconds.
constexpr size_t kEncodeWindowBytes = 128 << 10;
constexpr size_t kItemsPerMessage = 1'024;
constexpr size_t kMessageBytes = 1 << 20;

// How many of the job's undecoded ids go into the next question. After a stop string was found somewhere in several
// ids, the range is halved until it is known which id completed it: the job's ids then do not depend on how they were
// batched.
size_t ids_to_ask(const Job& job) {
  return job.stop_within > 0 ? (job.stop_within + 1) / 2 : job.ids_with_text() - job.decoded;
}

}  // namespace

void TokenizerPool::ask_encode(Job& job) {
  check(job.question.state == Question::State::kNone, "a job asks one question at a time");
  job.question.decode = false;
  job.question.state = Question::State::kWaiting;
  job.question.cost = job.spec.prompt.size();
  waiting_encodes_[job.spec.model].emplace(job.order, &job);
}

void TokenizerPool::ask_decode(Job& job) {
  if (job.question.state != Question::State::kNone) return;
  job.question.decode = true;
  job.question.state = Question::State::kWaiting;
  job.question.index = waiting_decodes_.size();
  waiting_decodes_.push_back(&job);
}

void TokenizerPool::forget(Job& job) {
  Question& question = job.question;
  if (question.state == Question::State::kWaiting) {
    if (question.decode) {
      waiting_decodes_[question.index] = nullptr;
    } else {
      waiting_encodes_[job.spec.model].erase(job.order);
    }
  } else if (question.state == Question::State::kAsked) {
    question.tokenizer->questions.erase(question.ticket);
    if (!question.decode) question.tokenizer->encode_cost -= question.cost;
    question.tokenizer = nullptr;
  }
  question.state = Question::State::kNone;
}

void TokenizerPool::drop(Job& job) {
  forget(job);
  job.question = {};
}

Job* TokenizerPool::take_answer(ServiceEntry& from, uint64_t ticket, bool decode) {
  const auto found = from.questions.find(ticket);
  if (found == from.questions.end() || found->second->question.decode != decode) return nullptr;
  Job* job = found->second;
  Question& question = job->question;
  if (!decode) from.encode_cost -= question.cost;
  from.questions.erase(found);
  question.avoid = from.info.instance;
  question.tokenizer = nullptr;
  question.state = Question::State::kNone;
  return job;
}

bool TokenizerPool::ask_again(Job& job, bool counts) {
  Question& question = job.question;
  ++retries_;
  if (question.tokenizer != nullptr) question.avoid = question.tokenizer->info.instance;
  forget(job);
  if (counts && ++question.tries >= options_.tokenizer_tries) return false;
  if (question.decode) {
    ask_decode(job);
  } else {
    ask_encode(job);
  }
  return true;
}

std::vector<Job*> TokenizerPool::take_questions(ServiceEntry& tokenizer) {
  std::vector<Job*> jobs;
  for (const auto& [ticket, job] : tokenizer.questions) jobs.push_back(job);
  return jobs;
}

std::vector<Job*> TokenizerPool::take_overdue(Instant now) {
  std::vector<Job*> jobs;
  for (auto* sent : {&sent_encodes_, &sent_decodes_}) {
    while (!sent->empty() && sent->front().overdue <= now) {
      if (ServiceEntry* tokenizer = services_.find(sent->front().tokenizer)) {
        const auto found = tokenizer->questions.find(sent->front().ticket);
        if (found != tokenizer->questions.end()) jobs.push_back(found->second);
      }
      sent->pop_front();
    }
  }
  return jobs;
}

ServiceEntry* TokenizerPool::choose(const Job& job, Instant now) const {
  ServiceEntry* best = nullptr;
  bool best_avoided = false;
  for (ServiceEntry* tokenizer : services_.of_kind(protocol::ServiceKind::kTokenizer)) {
    if (!tokenizer->is_usable(now) || !tokenizer->serves(job.spec.model)) continue;
    if (!job.question.decode && tokenizer->encode_cost > 0 &&
        tokenizer->encode_cost + job.question.cost > kEncodeWindowBytes) {
      continue;
    }
    const bool avoided = job.question.tries > 0 && tokenizer->info.instance == job.question.avoid;
    const bool better = best == nullptr || (best_avoided && !avoided) ||
                        (best_avoided == avoided && tokenizer->questions.size() < best->questions.size());
    if (!better) continue;
    best = tokenizer;
    best_avoided = avoided;
  }
  return best;
}

void TokenizerPool::mark_asked(Job& job, ServiceEntry& tokenizer, Instant now) {
  Question& question = job.question;
  question.state = Question::State::kAsked;
  question.ticket = next_ticket_++;
  question.tokenizer = &tokenizer;
  tokenizer.questions.emplace(question.ticket, &job);
  if (question.decode) {
    sent_decodes_.push_back({now + options_.decode_timeout, question.ticket, tokenizer.info.instance});
  } else {
    tokenizer.encode_cost += question.cost;
    sent_encodes_.push_back({now + options_.encode_timeout, question.ticket, tokenizer.info.instance});
  }
}

void TokenizerPool::flush(Instant now, transport::Outbox& out) {
  if (!waiting_decodes_.empty()) send_decodes(now, out);
  if (!waiting_encodes_.empty()) send_encodes(now, out);
}

void TokenizerPool::send_encodes(Instant now, transport::Outbox& out) {
  for (auto it = waiting_encodes_.begin(); it != waiting_encodes_.end();) {
    send_encodes_of(it->second, now, out);
    it = it->second.empty() ? waiting_encodes_.erase(it) : std::next(it);
  }
}

void TokenizerPool::send_encodes_of(std::map<uint64_t, Job*>& waiting, Instant now, transport::Outbox& out) {
  struct Batch {
    protocol::Encode message;
    size_t bytes = 0;
  };
  std::map<ServiceEntry*, Batch, ByInstance> batches;
  while (!waiting.empty()) {
    Job& job = *waiting.begin()->second;
    ServiceEntry* tokenizer = choose(job, now);
    if (tokenizer == nullptr) break;
    waiting.erase(waiting.begin());
    mark_asked(job, *tokenizer, now);
    Batch& batch = batches[tokenizer];
    batch.bytes += job.spec.prompt.size();
    batch.message.items.push_back({job.question.ticket, job.spec.model, job.spec.prompt});
    if (batch.message.items.size() >= kItemsPerMessage || batch.bytes >= kMessageBytes) {
      out.send(tokenizer->peer, std::exchange(batch, {}).message);
    }
  }
  for (auto& [tokenizer, batch] : batches) {
    if (!batch.message.items.empty()) out.send(tokenizer->peer, std::move(batch.message));
  }
}

void TokenizerPool::send_decodes(Instant now, transport::Outbox& out) {
  std::vector<std::pair<ServiceEntry*, protocol::Decode>> batches;
  std::vector<Job*> still_waiting;
  for (Job* job : waiting_decodes_) {
    if (job == nullptr) continue;
    Question& question = job->question;
    ServiceEntry* tokenizer = choose(*job, now);
    if (tokenizer == nullptr) {
      question.index = still_waiting.size();
      still_waiting.push_back(job);
      continue;
    }
    mark_asked(*job, *tokenizer, now);
    question.ids = ids_to_ask(*job);
    question.flush = job->stop_within == 0 && job->finish_reason != protocol::FinishReason::kNone;
    auto batch = std::find_if(batches.begin(), batches.end(), [&](const auto& b) { return b.first == tokenizer; });
    if (batch == batches.end()) batch = batches.insert(batches.end(), {tokenizer, {}});
    const auto first = job->output.begin() + static_cast<ptrdiff_t>(job->decoded);
    batch->second.items.push_back({question.ticket, job->spec.model, job->decode_state,
                                   std::vector<TokenId>(first, first + static_cast<ptrdiff_t>(question.ids)),
                                   job->spec.stop, question.flush});
    if (batch->second.items.size() >= kItemsPerMessage) {
      out.send(tokenizer->peer, std::exchange(batch->second, {}));
    }
  }
  waiting_decodes_ = std::move(still_waiting);
  for (auto& [tokenizer, message] : batches) {
    if (!message.items.empty()) out.send(tokenizer->peer, std::move(message));
  }
}

}  // namespace optserve::scheduler
