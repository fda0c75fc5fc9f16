// What clients are told about their jobs: pieces of text with positions, then the result. A client that does not read
// is left alone for a moment and continues where it stopped; one whose connection ended is forgotten.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "protocol/client_messages.h"
#include "scheduler/scheduler_options.h"
#include "scheduler/service_table.h"

namespace optserve::scheduler {

using SharedResult = std::shared_ptr<const protocol::JobResult>;

// One connection of a client with subscriptions.
struct Client {
  transport::Peer peer;
  bool gone = false;
  bool listed = false;  // has something to send in this turn
  Instant paused_until{};
  protocol::JobEvents events;
  size_t events_bytes = 0;
  uint64_t events_after = 0;
  std::vector<std::pair<SharedResult, uint64_t>> finished;  // with the sequence number that must be durable
  std::set<JobId> missed;                                   // while paused; told again afterwards
};

class ClientStreams {
 public:
  explicit ClientStreams(const SchedulerOptions& options) : options_(options) {}

  std::shared_ptr<Client> client(const transport::Peer& peer);
  // From `text_offset` on; replaces an earlier subscription of the same client. Nothing is sent before the journal
  // reached `after`. False: the job has too many.
  bool subscribe(Job& job, const std::shared_ptr<Client>& client, uint64_t text_offset, uint64_t after);
  // The job has more text or progress.
  void touch(Job& job);
  // The job's last events and its result, to everyone who follows it; its subscriptions end.
  void finish(Job& job, const SharedResult& result, uint64_t sequence);
  void send_result(const std::shared_ptr<Client>& client, const SharedResult& result, uint64_t sequence);
  // `durable`: records up to here are on disk and the answers that waited for them have left.
  void flush(uint64_t durable, Instant now, transport::Outbox& out);

  void on_gone(const transport::Peer& peer);
  // The client does not read: pauses it and notes what it missed.
  void on_slow(const transport::Peer& peer, const protocol::JobEvents& events, Instant now);
  void on_slow(const transport::Peer& peer, const JobId& job, Instant now);
  // The job's next event to this client starts at `text_offset` or before.
  static void rewind(Job& job, const transport::Peer& peer, uint64_t text_offset);
  // Clients whose pause is over, each with the jobs to tell about again.
  std::vector<std::pair<std::shared_ptr<Client>, std::vector<JobId>>> take_resumed(Instant now);
  // Forgets connections without subscriptions.
  void sweep();
  size_t size() const { return clients_.size(); }

 private:
  void add_events(Job& job, Instant now);
  void send_events(Client& client, uint64_t durable, transport::Outbox& out);
  void miss(Client& client, const JobId& job);
  void list(const std::shared_ptr<Client>& client);

  const SchedulerOptions& options_;
  std::unordered_map<transport::Peer, std::shared_ptr<Client>, PeerHash> clients_;
  std::vector<Job*> touched_;
  std::vector<std::shared_ptr<Client>> listed_;
  std::set<transport::Peer> paused_;
};

}  // namespace optserve::scheduler
