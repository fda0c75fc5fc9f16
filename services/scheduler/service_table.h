// The registered tokenizers, worker groups and converters, and the models that they have ever named.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "protocol/service_messages.h"
#include "scheduler/job.h"
#include "transport/service.h"

namespace optserve::scheduler {

// One connected service. Its session is the connection: a new connection starts without leases.
struct ServiceEntry {
  protocol::Register info;
  transport::Peer peer;
  Instant heard{};         // last message
  Instant progressed{};    // last sign of work: steps moved, tokens came, or nothing was to do
  Instant paused_until{};  // did not read its messages: nothing new before
  uint64_t steps = 0;
  bool draining = false;

  std::unordered_map<uint64_t, Job*> leases;  // workers and converters
  int64_t kv_reserved = 0;

  std::unordered_map<uint64_t, Job*> questions;  // tokenizers: by ticket
  size_t encode_cost = 0;                        // bytes of text in unanswered Encodes

  bool serves(std::string_view model) const;
  bool is_usable(Instant now) const { return !draining && now >= paused_until; }
  int32_t free_slots() const { return info.max_sequences - static_cast<int32_t>(leases.size()); }
};

// An order that does not depend on where entries lie in memory.
struct ByInstance {
  bool operator()(const ServiceEntry* a, const ServiceEntry* b) const { return a->info.instance < b->info.instance; }
};

struct PeerHash {
  size_t operator()(const transport::Peer& peer) const noexcept {
    return std::hash<std::string>()(peer.route) * 31 + static_cast<size_t>(peer.port);
  }
};

class ServiceTable {
 public:
  ServiceEntry* find(const transport::Peer& peer) const;
  ServiceEntry* find(const InstanceId& instance) const;
  // Refuses what contradicts the services that are there: another vocabulary or other weights under one model name.
  Status check(const protocol::Register& info) const;
  ServiceEntry& add(const transport::Peer& peer, protocol::Register info, Instant now);
  void move(ServiceEntry& entry, const transport::Peer& peer);
  void remove(ServiceEntry& entry);
  const std::vector<ServiceEntry*>& of_kind(protocol::ServiceKind kind) const {
    return by_kind_[static_cast<size_t>(kind) - 1];
  }
  size_t size() const { return entries_.size(); }

  // What is known of a model that was registered in this run; nullptr: never.
  const protocol::ModelInfo* model(const std::string& name) const;
  void learn(const protocol::Register& info);
  std::vector<std::string> model_names() const;

 private:
  std::unordered_map<InstanceId, std::unique_ptr<ServiceEntry>> entries_;
  std::unordered_map<transport::Peer, ServiceEntry*, PeerHash> by_peer_;
  std::vector<ServiceEntry*> by_kind_[3];
  std::map<std::string, protocol::ModelInfo, std::less<>> models_;
};

// Limits of what a service says about itself.
Status validate_registration(const protocol::Register& info);

}  // namespace optserve::scheduler
