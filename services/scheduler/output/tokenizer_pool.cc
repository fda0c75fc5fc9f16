#include "scheduler/output/tokenizer_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace optserve::scheduler {
namespace {

// How much text one tokenizer may have in its queue, so that a Decode behind it waits no longer than a few
// milliseconds.
constexpr size_t kEncodeWindowBytes = 128 << 10;
constexpr size_t kEncodeCostBytes = 64;  // what a prompt costs besides its text
constexpr size_t kItemsPerQuestion = 1'024;
constexpr size_t kQuestionBytes = 1 << 20;

}  // namespace

protocol::DecodeItem TokenizerPool::decode_item(const Job& job) {
  const TokenizerQuestion& question = job.question();
  protocol::DecodeItem item;
  item.ticket = question.ticket_;
  item.model = job.spec().model;
  item.stop = job.spec().stop;
  item.include_stop = job.spec().include_stop;
  if (job.decoding().hypothesis > 0) {
    const protocol::Hypothesis& hypothesis = job.output().hypotheses[job.decoding().hypothesis];
    const size_t count = job.ids_with_text(hypothesis.ids, hypothesis.finish_reason);
    item.ids.assign(hypothesis.ids.begin(), hypothesis.ids.begin() + static_cast<ptrdiff_t>(count));
    item.flush = true;
    return item;
  }
  item.state = job.decoding().state;
  const auto first = job.output().ids.begin() + static_cast<ptrdiff_t>(job.decoding().ids);
  item.ids.assign(first, first + static_cast<ptrdiff_t>(question.ids_));
  item.flush = question.flush_;
  return item;
}

void TokenizerPool::ask_encode(Job& job) {
  check(job.question().state_ == TokenizerQuestion::State::kNone, "a job asks one question at a time");
  job.question().decode_ = false;
  job.question().state_ = TokenizerQuestion::State::kWaiting;
  job.question().cost_ = job.spec().prompt.size();
  for (const std::string& word : job.spec().bad_words) job.question().cost_ += word.size();
  WaitingEncodes& waiting = waiting_encodes_[job.spec().model];
  double& next = waiting.tenants[job.spec().tenant];
  job.question().turn_ = std::max(next, waiting.time);
  next = job.question().turn_ +
         static_cast<double>(job.question().cost_ + kEncodeCostBytes) / options_.tenant_weights.of(job.spec().tenant);
  waiting.jobs.emplace(turn_of(job), &job);
  if (waiting.tenants.size() <= waiting.tenants_max) return;
  std::erase_if(waiting.tenants, [&](const auto& tenant) { return tenant.second <= waiting.time; });
  waiting.tenants_max = std::max(waiting.tenants_max, 2 * waiting.tenants.size());
}

void TokenizerPool::ask_decode(Job& job) {
  if (job.question().state_ != TokenizerQuestion::State::kNone) return;
  job.question().decode_ = true;
  job.question().state_ = TokenizerQuestion::State::kWaiting;
  job.question().index_ = waiting_decodes_.size();
  waiting_decodes_.push_back(&job);
}

void TokenizerPool::forget(Job& job) {
  TokenizerQuestion& question = job.question();
  if (question.state_ == TokenizerQuestion::State::kWaiting) {
    if (question.decode_) {
      waiting_decodes_[question.index_] = nullptr;
    } else {
      waiting_encodes_[job.spec().model].jobs.erase(turn_of(job));
    }
  } else if (question.state_ == TokenizerQuestion::State::kAsked) {
    question.tokenizer_->questions.erase(question.ticket_);
    if (!question.decode_) question.tokenizer_->encode_cost -= question.cost_;
    question.tokenizer_ = nullptr;
  }
  question.state_ = TokenizerQuestion::State::kNone;
}

void TokenizerPool::drop(Job& job) {
  forget(job);
  job.question() = {};
}

TokenizerPool::Answered TokenizerPool::take_answer(ServiceEntry& from, uint64_t ticket, bool decode) {
  const auto found = from.questions.find(ticket);
  if (found == from.questions.end() || found->second->question().decode_ != decode) return {};
  Job* job = found->second;
  TokenizerQuestion& question = job->question();
  if (!decode) from.encode_cost -= question.cost_;
  from.questions.erase(found);
  question.avoid_ = from.info.instance;
  question.tokenizer_ = nullptr;
  question.state_ = TokenizerQuestion::State::kNone;
  return {job, question.ids_, question.flush_};
}

bool TokenizerPool::ask_again(Job& job, bool counts) {
  TokenizerQuestion& question = job.question();
  ++retries_;
  if (question.tokenizer_ != nullptr) question.avoid_ = question.tokenizer_->info.instance;
  forget(job);
  if (counts && ++question.tries_ >= options_.tokenizer_tries) return false;
  if (question.decode_) {
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

// The job that still waits for the answer; nullptr: it does not.
Job* TokenizerPool::asked_with(const Sent& sent) {
  ServiceEntry* tokenizer = services_.find(sent.tokenizer);
  if (tokenizer == nullptr) return nullptr;
  const auto found = tokenizer->questions.find(sent.ticket);
  return found == tokenizer->questions.end() ? nullptr : found->second;
}

std::vector<Job*> TokenizerPool::take_overdue(Instant now) {
  std::vector<Job*> jobs;
  const auto take = [&](const Sent& sent) {
    if (Job* job = asked_with(sent)) jobs.push_back(job);
  };
  for (auto* sent : {&sent_encodes_, &sent_decodes_}) {
    for (; !sent->empty() && sent->front().overdue <= now; sent->pop_front()) take(sent->front());
  }
  while (!sent_again_.empty() && sent_again_.begin()->first <= now) {
    take(sent_again_.begin()->second);
    sent_again_.erase(sent_again_.begin());
  }
  return jobs;
}

ServiceEntry* TokenizerPool::choose(const Job& job, Instant now) const {
  ServiceEntry* best = nullptr;
  bool best_avoided = false;
  for (ServiceEntry* tokenizer : services_.of_kind(protocol::ServiceKind::kTokenizer)) {
    if (!tokenizer->is_usable(now) || !tokenizer->serves(job.spec().model)) continue;
    if (!job.question().decode_ && tokenizer->encode_cost > 0 &&
        tokenizer->encode_cost + job.question().cost_ > kEncodeWindowBytes) {
      continue;
    }
    const bool avoided = job.question().tries_ > 0 && tokenizer->info.instance == job.question().avoid_;
    const bool better = best == nullptr || (best_avoided && !avoided) ||
                        (best_avoided == avoided && tokenizer->questions.size() < best->questions.size());
    if (!better) continue;
    best = tokenizer;
    best_avoided = avoided;
  }
  return best;
}

void TokenizerPool::mark_asked(Job& job, ServiceEntry& tokenizer, Instant now) {
  TokenizerQuestion& question = job.question();
  question.state_ = TokenizerQuestion::State::kAsked;
  question.ticket_ = next_ticket_++;
  question.tokenizer_ = &tokenizer;
  tokenizer.questions.emplace(question.ticket_, &job);
  if (!question.decode_) tokenizer.encode_cost += question.cost_;
  const Duration patience = question.decode_ ? options_.decode_timeout : options_.encode_timeout;
  if (question.tries_ == 0) {
    (question.decode_ ? sent_decodes_ : sent_encodes_)
        .push_back({now + patience, question.ticket_, tokenizer.info.instance});
  } else {
    // Twice as long each time: slow tokenizers, or a slow way to them, delay a job and do not fail it.
    const Instant overdue = now + patience * (int64_t{1} << question.tries_);
    sent_again_.emplace(overdue, Sent{overdue, question.ticket_, tokenizer.info.instance});
  }
}

void TokenizerPool::flush(Instant now, transport::Outbox& out) {
  if (services_.of_kind(protocol::ServiceKind::kTokenizer).empty()) return;
  if (!waiting_decodes_.empty()) send_decodes(now, out);
  if (!waiting_encodes_.empty()) send_encodes(now, out);
}

void TokenizerPool::send_encodes(Instant now, transport::Outbox& out) {
  for (auto it = waiting_encodes_.begin(); it != waiting_encodes_.end();) {
    send_encodes_of(it->second, now, out);
    it = it->second.jobs.empty() ? waiting_encodes_.erase(it) : std::next(it);
  }
}

void TokenizerPool::send_encodes_of(WaitingEncodes& waiting, Instant now, transport::Outbox& out) {
  struct Batch {
    transport::Peer to;
    protocol::Encode message;
    size_t bytes = 0;
  };
  std::map<uint64_t, Batch> batches;  // by the tokenizer's serial
  while (!waiting.jobs.empty()) {
    Job& job = *waiting.jobs.begin()->second;
    ServiceEntry* tokenizer = choose(job, now);
    if (tokenizer == nullptr) break;
    waiting.time = std::max(waiting.time, job.question().turn_);
    waiting.jobs.erase(waiting.jobs.begin());
    mark_asked(job, *tokenizer, now);
    Batch& batch = batches[tokenizer->serial];
    batch.to = tokenizer->peer;
    batch.bytes += job.question().cost_;
    batch.message.items.push_back(
        {job.question().ticket_, job.spec().model, job.spec().prompt, job.spec().bad_words, job.spec().traceparent});
    if (batch.message.items.size() >= kItemsPerQuestion || batch.bytes >= kQuestionBytes) {
      out.send(batch.to, std::exchange(batch.message, {}));
      batch.bytes = 0;
    }
  }
  for (auto& [serial, batch] : batches) {
    if (!batch.message.items.empty()) out.send(batch.to, std::move(batch.message));
  }
}

void TokenizerPool::send_decodes(Instant now, transport::Outbox& out) {
  std::vector<std::pair<ServiceEntry*, protocol::Decode>> batches;
  std::vector<Job*> still_waiting;
  for (Job* job : waiting_decodes_) {
    if (job == nullptr) continue;
    TokenizerQuestion& question = job->question();
    ServiceEntry* tokenizer = choose(*job, now);
    if (tokenizer == nullptr) {
      question.index_ = still_waiting.size();
      still_waiting.push_back(job);
      continue;
    }
    mark_asked(*job, *tokenizer, now);
    question.ids_ = job->decoding().hypothesis > 0 ? 0 : job->ids_with_text() - job->decoding().ids;
    question.flush_ = job->output().is_complete();
    auto batch = std::find_if(batches.begin(), batches.end(), [&](const auto& b) { return b.first == tokenizer; });
    if (batch == batches.end()) batch = batches.insert(batches.end(), {tokenizer, {}});
    batch->second.items.push_back(decode_item(*job));
    if (batch->second.items.size() >= kItemsPerQuestion) {
      out.send(tokenizer->peer, std::exchange(batch->second, {}));
    }
  }
  waiting_decodes_ = std::move(still_waiting);
  for (auto& [tokenizer, message] : batches) {
    if (!message.items.empty()) out.send(tokenizer->peer, std::move(message));
  }
}

}  // namespace optserve::scheduler
