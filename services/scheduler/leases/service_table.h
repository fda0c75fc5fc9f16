// The registered tokenizers, worker groups and converters, and the models that they have ever named.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "protocol/service_messages.h"
#include "scheduler/jobs/job.h"
#include "scheduler/leases/worker_speed.h"
#include "transport/service.h"

namespace optserve::scheduler {

// One connected service. Its session is the connection: a new connection starts without leases.
struct ServiceEntry {
  protocol::Register info;
  transport::Peer peer;
  Instant heard{};         // last message
  Instant progressed{};    // last sign of work: steps moved, tokens came, or the first lease was given
  Instant paused_until{};  // it did not read its messages, so it gets nothing new before this
  Instant next_check{};    // when to look next whether it lives
  Instant ended_at{};      // when its connection ended; Instant{}: it has one
  uint64_t serial = 0;     // number of its registration in this run
  size_t place = 0;        // among those of its kind
  std::optional<uint64_t> steps;
  bool draining = false;
  bool held = false;                   // by an operator
  std::string key_name{};              // of the key that it came with; empty without keys
  std::vector<std::string> folders{};  // in which conversions may lie; empty: anywhere

  // Workers and converters.
  std::unordered_map<uint64_t, Job*> leases;
  int64_t kv_reserved = 0;
  int64_t unprocessed = 0;  // tokens that its leases still cost
  int32_t wanted = 0;       // jobs that it wants from this scheduler; 0: as registered
  StepPace pace;
  SpeedMeter meter;
  double tokens_per_second = 0;     // as its queues know it; 0: not measured
  std::vector<ModelQueue*> queues;  // of its models; this and the following are kept by ModelQueues
  bool is_paused = false;
  bool counted_as_serving = false;
  bool is_indexed = false;
  double indexed_wait = 0;

  std::unordered_map<uint64_t, Job*> questions;  // tokenizers: by ticket
  size_t encode_cost = 0;                        // bytes of text in unanswered Encodes

  bool serves(std::string_view model) const;
  // The worker made progress, which shows that it is not stuck.
  void note_step(Instant now) {
    if (!leases.empty()) pace.step(now - progressed, now);
    progressed = now;
  }
  bool is_away() const { return ended_at != Instant{}; }
  bool is_usable(Instant now) const { return !draining && !held && !is_away() && now >= paused_until; }
  // How many jobs it may hold.
  int32_t room() const { return wanted > 0 ? std::min(wanted, info.max_sequences) : info.max_sequences; }
  int32_t free_slots() const { return room() - static_cast<int32_t>(leases.size()); }
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
  // Refuses a service that contradicts those that are there: another vocabulary or other weights for the same model.
  Status check(const protocol::Register& info) const;
  ServiceEntry& add(const transport::Peer& peer, protocol::Register info, Instant now);
  void move(ServiceEntry& entry, const transport::Peer& peer);
  void remove(ServiceEntry& entry);
  const std::vector<ServiceEntry*>& of_kind(protocol::ServiceKind kind) const {
    return by_kind_[static_cast<size_t>(kind) - 1];
  }
  std::vector<ServiceEntry*> all() const;
  size_t size() const { return entries_.size(); }
  // The service has registered again with other values, which check() allowed.
  void replace_info(ServiceEntry& entry, protocol::Register info);

  // A service that is to be looked at now, or nullptr; the caller says when to look again (check_at).
  ServiceEntry* due(Instant now) const;
  void check_at(ServiceEntry& entry, Instant when);

  // What is known of a model that was registered in this run; nullptr: never.
  const protocol::ModelInfo* model(const std::string& name) const;
  // False for a model that is known to serve token ids only.
  bool has_text(const std::string& name) const;
  void learn(const protocol::Register& info);
  // Whether a prompt of this length and its output fit the model's context.
  Status check_length(const std::string& name, size_t prompt_tokens, int32_t max_new_tokens) const;
  std::vector<std::string> model_names() const;

 private:
  // The services that name a digest of a model, by serial. There is more than one digest only while a service registers
  // again with another one.
  using Digests = std::map<std::string, std::map<uint64_t, const ServiceEntry*>>;
  struct ModelDigests {
    Digests vocabulary;
    Digests manifest[3];  // by kind
  };
  static Status check_digest(const protocol::Register& info, const protocol::ModelInfo& model, const char* what,
                             const std::string& digest, const Digests& known);
  void add_digests(const ServiceEntry& entry);
  void remove_digests(const ServiceEntry& entry);

  std::unordered_map<InstanceId, std::unique_ptr<ServiceEntry>> entries_;
  std::unordered_map<transport::Peer, ServiceEntry*, PeerHash> by_peer_;
  std::vector<ServiceEntry*> by_kind_[3];
  std::map<std::pair<Instant, uint64_t>, ServiceEntry*> checks_;  // by time and serial
  std::map<std::string, ModelDigests, std::less<>> digests_;
  uint64_t next_serial_ = 1;
  std::map<std::string, protocol::ModelInfo, std::less<>> models_;
};

// Whether the values with which a service registers are within their limits.
Status validate_registration(const protocol::Register& info);

}  // namespace optserve::scheduler
