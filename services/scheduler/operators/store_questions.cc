#include "scheduler/operators/store_questions.h"

#include "scheduler/jobs/answers.h"

namespace optserve::scheduler {

bool StoreQuestions::ask(StoreQuestion question, journal::Question to_store, transport::Outbox& out) {
  if (open_.size() >= questions_max_) {
    refuse_to(question.peer, question.request,
              refuse(ErrorCode::kBusy, "too many jobs are being looked up; try again soon"), out);
    return false;
  }
  const uint64_t number = next_++;
  ++counts_[question.what.index()];
  open_.emplace(number, std::move(question));
  store_.ask(number, std::move(to_store));
  return true;
}

std::vector<std::pair<StoreQuestion, journal::Answer>> StoreQuestions::take_answers() {
  std::vector<std::pair<StoreQuestion, journal::Answer>> answered;
  if (open_.empty()) return answered;
  for (journal::Answer& answer : store_.poll_answers()) {
    const auto found = open_.find(answer.request);
    if (found == open_.end()) continue;
    --counts_[found->second.what.index()];
    answered.emplace_back(std::move(found->second), std::move(answer));
    open_.erase(found);
  }
  return answered;
}

}  // namespace optserve::scheduler
