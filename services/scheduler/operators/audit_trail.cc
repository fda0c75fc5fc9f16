#include "scheduler/operators/audit_trail.h"

#include <algorithm>
#include <type_traits>
#include <variant>

namespace optserve::scheduler {
namespace {

template <class Message>
size_t kind_of() {
  return protocol::Message(Message{}).index();
}

// Between quotes, which stand twice inside: where text goes on behind a name, nobody's name can pretend to be that
// text.
std::string quoted(std::string_view name) {
  std::string text = "'";
  for (const char c : name) text += c == '\'' ? std::string("''") : std::string(1, c);
  return text + "'";
}

std::string action_name(protocol::ControlAction action) {
  switch (action) {
    case protocol::ControlAction::kPause:
      return "pause";
    case protocol::ControlAction::kDrain:
      return "drain";
    case protocol::ControlAction::kResume:
      break;
  }
  return "resume";
}

std::string object_of(const protocol::Control& message) {
  switch (message.scope) {
    case protocol::ControlScope::kModel:
      return "model " + message.name;
    case protocol::ControlScope::kService:
      return "service " + message.name;
    case protocol::ControlScope::kQueue:
      break;
  }
  return message.name.empty() ? "queue" : "queue " + message.name;
}

std::string object_of(const protocol::JobFilter& filter) {
  std::string text = "jobs";
  if (filter.job) text += " id=" + filter.job->hex();
  if (filter.state) text += " state=" + std::string(protocol::job_state_name(*filter.state));
  if (filter.tenant) text += " tenant=" + quoted(*filter.tenant);
  if (!filter.model.empty()) text += " model=" + quoted(filter.model);
  if (!filter.group.empty()) text += " group=" + quoted(filter.group);
  return text;
}

std::string tenants_of(const keys::AllowedKey& key) {
  if (key.tenants.is_all()) return "*";
  std::string text;
  for (const std::string& name : key.tenants.names()) {
    text += (text.empty() ? "" : ",") + (name.empty() ? quoted(name) : name);
    if (text.size() > audit::kTextBytesMax) break;
  }
  return text;
}

// What the answer says came of it.
std::string result_of(const protocol::Message& answer) {
  if (const auto* purged = std::get_if<protocol::Purged>(&answer)) {
    return std::to_string(purged->jobs) + " jobs purged";
  }
  if (const auto* copy = std::get_if<protocol::BackedUp>(&answer)) {
    return copy->file + ", " + std::to_string(copy->bytes) + " bytes";
  }
  if (const auto* job = std::get_if<protocol::JobStatus>(&answer)) {
    return "the job is " + std::string(protocol::job_state_name(job->result.state));
  }
  if (const auto* group = std::get_if<protocol::GroupStatus>(&answer)) {
    return std::to_string(group->cancelled) + " jobs of the group are cancelled, " + std::to_string(group->open) +
           " open";
  }
  return "";
}

}  // namespace

using transport::Outbox;
using transport::Peer;

void AuditTrail::begin(const Peer& from, const protocol::Message& message, uint64_t request, Instant now) {
  present_.reset();
  if (!write_) return;
  // A number that is used again would make an answer ambiguous: what was begun under it stays without an end.
  if (!open_.empty()) open_.erase({from, request});
  std::optional<Open> open = describe(from, message);
  if (!open) return;
  open->record.wall_ms = tables_.options.wall_ms();
  open->record.peer = sender_address_ ? sender_address_() : "";
  open->since = now;
  if (tables_.access.is_on()) {
    const keys::AllowedKey* key = tables_.access.key_of(from);
    open->has_right = key != nullptr && key->is_operator;
    if (key != nullptr) {
      open->record.key = key->name;
      open->record.tenants = tenants_of(*key);
    }
  }
  if (open_.size() >= kOpenMax) {
    open_.erase(std::ranges::min_element(open_, {}, [](const auto& entry) { return entry.second.since; }));
  }
  present_ = Place{from, request};
  open_.emplace(*present_, std::move(*open));
}

void AuditTrail::end(const Outbox& out, size_t first, Instant now) {
  see(out, first, now);
  if (!present_) return;
  // Carried out later: it is written down now too, since this process may not live to see the end.
  if (const auto found = open_.find(*present_); found != open_.end()) {
    audit::Record begun = found->second.record;
    begun.outcome = audit::Outcome::kBegun;
    write_(std::move(begun));
  }
  present_.reset();
}

void AuditTrail::see(const Outbox& out, size_t first, Instant now) {
  if (open_.empty()) return;
  for (size_t i = first; i < out.items().size() && !open_.empty(); ++i) look_at(out.items()[i], now);
}

void AuditTrail::look_at(const transport::Outgoing& item, Instant now) {
  const uint64_t request = std::visit(
      [](const auto& body) -> uint64_t {
        if constexpr (requires { body.request; }) return body.request;
        return 0;
      },
      item.message);
  const auto* refused = std::get_if<protocol::Refused>(&item.message);
  auto found = open_.find({item.to, request});
  // A message on the wrong port is refused without its number.
  const bool answers_present = present_ && present_->first == item.to;
  if (found == open_.end() && refused != nullptr && answers_present) found = open_.find(*present_);
  if (found == open_.end() || (refused == nullptr && item.message.index() != found->second.answer)) return;
  Open open = std::move(found->second);
  open_.erase(found);
  open.record.outcome = refused != nullptr ? audit::Outcome::kRefused : audit::Outcome::kDone;
  open.record.reason = refused != nullptr ? refused->message : result_of(item.message);
  open.record.wall_ms = tables_.options.wall_ms();
  finish(std::move(open), now);
}

void AuditTrail::finish(Open open, Instant now) {
  if (open.record.outcome != audit::Outcome::kRefused || open.has_right) {
    write_(std::move(open.record));
    return;
  }
  if (refusals_.size() >= kKeysMax && !refusals_.contains(open.record.key)) refusals_.clear();
  Refusals& refusals = refusals_.try_emplace(open.record.key, Refusals{.filled = now}).first->second;
  fill(refusals, now);
  if (refusals.left < 1) {
    ++refusals.left_out;
    refusals.last = std::move(open.record);
    return;
  }
  refusals.left -= 1;
  open.record.left_out = std::exchange(refusals.left_out, 0);
  write_(std::move(open.record));
}

void AuditTrail::fill(Refusals& refusals, Instant now) {
  const double passed = std::chrono::duration<double>(now - refusals.filled) / kRefusedInterval;
  refusals.left = std::min(kRefusedBurst, refusals.left + std::max(0.0, passed));
  refusals.filled = now;
}

void AuditTrail::draining() {
  if (!write_) return;
  write_({.wall_ms = tables_.options.wall_ms(),
          .action = "stop",
          .object = "scheduler",
          .outcome = audit::Outcome::kBegun,
          .reason = "asked to end"});
}

void AuditTrail::sweep(Instant now) {
  for (auto& [key, refusals] : refusals_) {
    fill(refusals, now);
    if (refusals.left_out == 0 || refusals.left < 1) continue;
    refusals.left -= 1;
    refusals.last.left_out = std::exchange(refusals.left_out, 0) - 1;
    write_(std::exchange(refusals.last, {}));
  }
  std::erase_if(refusals_, [](const auto& entry) { return entry.second.left >= kRefusedBurst; });
}

// Without keys everybody is everybody, and a key of all tenants cancels as the one whose job it is: a gateway does so
// all day. Where a message names no tenant, that of the key is meant, and an operator's is the tenant without a name.
bool AuditTrail::is_anothers(const Peer& from, const std::string& tenant) const {
  if (!tables_.access.is_on()) return false;
  const keys::AllowedKey* key = tables_.access.key_of(from);
  if (key == nullptr) return true;
  return !key->tenants.contains(tenant) && (!tenant.empty() || key->is_operator);
}

std::optional<AuditTrail::Open> AuditTrail::describe(const Peer& from, const protocol::Message& message) const {
  const auto open = [](std::string action, std::string object, size_t answer) {
    return Open{.record = {.action = std::move(action), .object = std::move(object)}, .answer = answer};
  };
  if (const auto* control = std::get_if<protocol::Control>(&message)) {
    return open(action_name(control->action), object_of(*control), kind_of<protocol::SystemStatus>());
  }
  if (const auto* requeue = std::get_if<protocol::Requeue>(&message)) {
    return open("requeue", "job " + requeue->job.hex(), kind_of<protocol::JobStatus>());
  }
  if (const auto* purge = std::get_if<protocol::Purge>(&message)) {
    return open("purge", object_of(purge->filter), kind_of<protocol::Purged>());
  }
  if (std::holds_alternative<protocol::Backup>(message)) {
    return open("backup", "journal", kind_of<protocol::BackedUp>());
  }
  if (const auto* cancel = std::get_if<protocol::Cancel>(&message)) {
    const Job* job = tables_.jobs.find(cancel->job);
    if (job == nullptr || !is_anothers(from, job->spec().tenant)) return std::nullopt;
    return open("cancel", "job " + cancel->job.hex() + " of tenant " + quoted(job->spec().tenant),
                kind_of<protocol::JobStatus>());
  }
  if (const auto* group = std::get_if<protocol::GetGroup>(&message)) {
    if (!group->cancel || !is_anothers(from, group->tenant)) return std::nullopt;
    return open("cancel", "group " + quoted(group->group) + " of tenant " + quoted(group->tenant),
                kind_of<protocol::GroupStatus>());
  }
  return std::nullopt;
}

}  // namespace optserve::scheduler
