// Who asked for what operators may do, and what came of it, as records for the audit log (audit/audit_log.h).
//
// It looks at messages as they come and at answers as they leave. So none of those who carry out what is asked has to
// think of it, and what they learn to refuse or to answer later is written down like the rest.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "audit/audit_record.h"
#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

class AuditTrail {
 public:
  using Write = std::function<void(audit::Record record)>;
  using AddressOf = std::function<std::string()>;  // of whoever sent the message that is being handled

  // Refused attempts of a key without the right: so many at once, then one a minute. The others are counted in the next
  // record, so that a flood of them does not push out what was done.
  static constexpr double kRefusedBurst = 20;
  static constexpr seconds kRefusedInterval{60};
  static constexpr size_t kKeysMax = 10'000;
  static constexpr size_t kOpenMax = 1'024;  // that are carried out; of others the log has the beginning alone

  explicit AuditTrail(const SchedulerTables& tables) : tables_(tables) {}
  // From then on records are written.
  void set_write(Write write, AddressOf sender_address) {
    write_ = std::move(write);
    sender_address_ = std::move(sender_address);
  }

  // Around the handling of each message: before anything else looks at it, and afterwards with the place of its first
  // answer in `out`.
  void begin(const transport::Peer& from, const protocol::Message& message, uint64_t request, Instant now);
  void end(const transport::Outbox& out, size_t first, Instant now);
  // Around whatever else sends answers.
  void see(const transport::Outbox& out, size_t first, Instant now);
  // The process was asked to end, and lets running jobs end first.
  void draining();
  // Tells of refused attempts that were left out, once that is due.
  void sweep(Instant now);

 private:
  using Place = std::pair<transport::Peer, uint64_t>;  // who asked, and the number of the request
  struct Open {
    audit::Record record;
    size_t answer = 0;  // which kind of message says that it is done
    bool has_right = true;
    Instant since{};
  };
  struct Refusals {  // of one key
    double left = kRefusedBurst;
    Instant filled{};
    uint64_t left_out = 0;
    audit::Record last{};
  };

  // What is an operator's: action, object, and the kind of its answer.
  std::optional<Open> describe(const transport::Peer& from, const protocol::Message& message) const;
  bool is_anothers(const transport::Peer& from, const std::string& tenant) const;
  void look_at(const transport::Outgoing& item, Instant now);
  void finish(Open open, Instant now);
  bool may_write(const audit::Record& record, Instant now);
  static void fill(Refusals& refusals, Instant now);

  const SchedulerTables& tables_;
  Write write_;
  AddressOf sender_address_;
  std::map<Place, Open> open_;
  std::optional<Place> present_;                        // of the message that is being handled
  std::unordered_map<std::string, Refusals> refusals_;  // by the name of the key
};

}  // namespace optserve::scheduler
