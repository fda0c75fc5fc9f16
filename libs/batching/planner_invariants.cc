#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "batching/planner_impl.h"

namespace optserve::batching {

namespace {

// Collects the first inconsistency found.
class Findings {
 public:
  void expect(bool holds, const std::string& what) {
    if (!holds && text_.empty()) text_ = what;
  }
  std::string text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

std::string Planner::check_invariants() const {
  Findings findings;
  const PlannerOptions& options = impl_->options;
  std::map<int32_t, int32_t> users;  // by KV block
  std::set<int32_t> slots(impl_->free_slots.begin(), impl_->free_slots.end());
  findings.expect(slots.size() == impl_->free_slots.size(), "a slot is free twice");
  std::unordered_map<uint64_t, int32_t> pending;
  for (const PendingStep& step : impl_->pending_steps) {
    for (const PendingItem& item : step.items) pending[item.serial] += item.sample ? 1 : 0;
  }
  uint64_t youngest_running = 0;
  for (const auto* list : {&impl_->running, &impl_->waiting}) {
    uint64_t oldest = 0;
    for (const Sequence& sequence : *list) {
      const std::string name = "sequence " + std::to_string(sequence.request.id);
      findings.expect(sequence.age > oldest || (sequence.age == oldest && sequence.beam >= 0),
                      name + " is out of age order");
      oldest = sequence.age;
      if (list == &impl_->running) youngest_running = sequence.age;
      // The beams of the next round wait at the place of their search, which may be in front of running sequences.
      findings.expect(list == &impl_->running || sequence.beam >= 0 || sequence.age > youngest_running,
                      name + " waits behind a younger one");
      findings.expect(sequence.length() <= sequence.length_max, name + " is longer than allowed");
      findings.expect(sequence.cached <= sequence.length(), name + " caches more than it has");
      if (list == &impl_->running) {
        findings.expect(slots.insert(sequence.slot).second, name + " shares its slot");
        findings.expect(sequence.blocks.size() * options.block_tokens >= sequence.cached, name + " lacks KV blocks");
      } else {
        findings.expect(sequence.slot < 0 && sequence.blocks.size() == 0 && sequence.cached == 0,
                        name + " waits but holds a slot, blocks or cache");
      }
    }
  }
  findings.expect(static_cast<int32_t>(slots.size()) == options.max_sequences, "a slot is lost");
  size_t live = 0, beams = 0;
  for (const auto* list : {&impl_->running, &impl_->waiting, &impl_->draining}) {
    live += list->size();
    for (const Sequence& sequence : *list) {
      const std::string name = "sequence " + std::to_string(sequence.request.id);
      beams += sequence.beam >= 0 ? 1 : 0;
      findings.expect(sequence.pending == pending[sequence.serial], name + " miscounts its pending tokens");
      for (int32_t block : sequence.blocks.blocks()) {
        ++users[block];
      }
    }
  }
  for (const auto& [block, count] : users) {
    findings.expect(impl_->pool.users(block) == count && (count == 1 || options.prefix_cache),
                    "KV block " + std::to_string(block) + " miscounts its users");
  }
  size_t missing = 0;
  for (const auto& [id, run] : impl_->beams) missing += run.missing;
  findings.expect(beams == missing, "a beam is lost");
  findings.expect(live == impl_->by_id.size() + beams && live == impl_->by_serial.size(), "a sequence is lost");
  findings.expect(static_cast<int32_t>(users.size()) + impl_->pool.num_free() == options.num_blocks,
                  "KV blocks are lost or invented");
  return findings.text();
}

}  // namespace optserve::batching
