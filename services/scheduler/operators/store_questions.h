// Questions to the store that have no answer yet: who asked, and what for. Bounded. A request is carried out even if
// the peer is gone.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "journal/job_store.h"
#include "transport/service.h"

namespace optserve::scheduler {

// A client waits for a result that is not in memory: to follow the job, or to know how it is.
struct AskedResult {
  JobId job;
  bool follow = false;
  uint64_t after = 0;  // sequence number of the answer before it
};
// The open jobs of a list, to which the ended ones come.
struct AskedList {
  std::vector<protocol::JobSummary> open;
  bool more = false;
  protocol::ListJobs asked;
};
struct AskedRequeue {
  JobId job;
};
struct AskedPurge {};
struct AskedBackup {};

struct StoreQuestion {
  transport::Peer peer;
  uint64_t request = 0;
  std::variant<AskedResult, AskedList, AskedRequeue, AskedPurge, AskedBackup> what;
};

class StoreQuestions {
 public:
  StoreQuestions(journal::JobStore& store, size_t questions_max) : store_(store), questions_max_(questions_max) {}

  // False: too many are open, and the peer was refused.
  bool ask(StoreQuestion question, journal::Question to_store, transport::Outbox& out);
  std::vector<std::pair<StoreQuestion, journal::Answer>> take_answers();

  // How many of one kind are open.
  template <class Asked>
  size_t count() const {
    return counts_[StoreQuestion{{}, 0, Asked{}}.what.index()];
  }

 private:
  journal::JobStore& store_;
  size_t questions_max_;
  uint64_t next_ = 1;
  std::unordered_map<uint64_t, StoreQuestion> open_;
  size_t counts_[std::variant_size_v<decltype(StoreQuestion::what)>] = {};
};

}  // namespace optserve::scheduler
