// What clients are told about their jobs: pieces of text with positions, then the result. A client whose credit is used
// up, or that does not read, gets nothing more and continues where it stopped; one whose connection ended is forgotten.
//
// For a client that takes nothing only ids of jobs are held. Text is copied only as far as the client's window has
// room, which is at most limits::kStreamWindowMax and one result.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "protocol/client_messages.h"
#include "scheduler/clients/credit_window.h"
#include "scheduler/leases/service_table.h"
#include "scheduler/scheduler_options.h"

namespace optserve::scheduler {

// Job ids in the order in which they came, each once.
class JobIdList {
 public:
  void push(const JobId& job) {
    if (known_.insert(job).second) order_.push_back(job);
  }
  // The first `count`, or all.
  std::vector<JobId> take(size_t count) {
    std::vector<JobId> taken;
    for (; taken.size() < count && !order_.empty(); order_.pop_front()) {
      known_.erase(order_.front());
      taken.push_back(order_.front());
    }
    return taken;
  }
  size_t size() const { return order_.size(); }
  bool empty() const { return order_.empty(); }
  void clear() { order_.clear(), known_.clear(); }

 private:
  std::deque<JobId> order_;
  std::unordered_set<JobId> known_;
};

using SharedResult = std::shared_ptr<const protocol::JobResult>;

// One connection of a client with subscriptions.
struct Client {
  transport::Peer peer;
  bool gone = false;
  bool listed = false;  // has something to send in this turn
  Instant paused_until{};
  CreditWindow credit;
  Instant credit_at{};  // when its last Credit came
  protocol::JobEvents events;
  size_t events_bytes = 0;
  uint64_t events_after = 0;
  std::vector<std::pair<SharedResult, uint64_t>> finished;  // with the sequence number that must be durable
  JobIdList missed;                                         // jobs with news that it did not take
  std::unordered_set<JobId> leavable;                       // jobs it follows that are cancelled when nobody does
};

// A client that can take something again, and the jobs to tell it about.
struct ResumedClient {
  std::shared_ptr<Client> client;
  std::vector<JobId> jobs;
};

// From where on a client wants a job's text.
struct StreamStart {
  uint64_t text_offset = 0;
  uint64_t text_digest = 0;  // of the text before, as Attach tells it
  uint64_t after = 0;        // nothing is sent before the journal has reached this
};

class ClientStreams {
 public:
  explicit ClientStreams(const SchedulerOptions& options) : options_(options) {}

  std::shared_ptr<Client> client(const transport::Peer& peer);
  // The client gets the job's text from there on, or from its beginning if the text that it has differs. Replaces an
  // earlier subscription of the same client. False: the job has too many subscriptions.
  bool subscribe(Job& job, const std::shared_ptr<Client>& client, const StreamStart& start);
  // Nothing of the job is sent to this peer before the journal has reached `after`.
  static void hold(Job& job, const transport::Peer& peer, uint64_t after);
  // The job has more text or progress.
  void touch(Job& job);
  // Sends the job's last events and its result to everyone who follows it, and ends its subscriptions.
  void finish(Job& job, const SharedResult& result, uint64_t sequence);
  void send_result(const std::shared_ptr<Client>& client, const SharedResult& result, uint64_t sequence);
  // Sends what was gathered. `durable`: records up to this number are on disk, and the answers that waited for them
  // have left.
  void flush(uint64_t durable, Instant now, transport::Outbox& out);

  // False: the credit decreased, and is ignored.
  bool on_credit(const transport::Peer& peer, const protocol::Credit& credit, Instant now);
  // The connection has ended. Returns how many jobs it followed.
  size_t on_gone(const transport::Peer& peer);
  // The client does not read: pauses it and remembers what it missed.
  void on_slow(const transport::Peer& peer, const protocol::JobEvents& events, Instant now);
  void on_slow(const transport::Peer& peer, const protocol::JobResult& result, Instant now);
  // The client did not get this event of the job: its next one starts there or before.
  static void rewind(Job& job, const transport::Peer& peer, const protocol::JobEvent& event);
  // Clients whose pause is over or that have credit again.
  std::vector<ResumedClient> take_resumed(Instant now);
  bool has_followers(const Job& job) const;
  // Jobs with OnDisconnect::kCancel that lost a follower.
  std::vector<JobId> take_left() { return std::exchange(left_, {}); }
  // Sends a message without content to the followers of the job that cannot get events, to see whether they are there.
  void probe(const Job& job, transport::Outbox& out) const;
  // Forgets connections without subscriptions.
  void sweep(Instant now);
  size_t size() const { return clients_.size(); }
  size_t following() const;  // connections that follow at least one job

 private:
  void add_events(Job& job, Instant now);
  // Compares the text that the client has, once the job has as much.
  static void compare(const Job& job, Subscription& subscription);
  // Adds the subscription's next piece; false: there is nothing to tell.
  bool add_event(Job& job, Subscription& subscription, bool anyway);
  static bool takes_something(const Client& client, Instant now) {
    return client.paused_until <= now && client.credit.room() > 0;
  }
  void on_slow(const transport::Peer& peer, const JobId& job, size_t cost, Instant now);
  void send_events(Client& client, uint64_t durable, transport::Outbox& out);
  void miss(Client& client, const JobId& job);
  void list(const std::shared_ptr<Client>& client);

  const SchedulerOptions& options_;
  std::unordered_map<transport::Peer, std::shared_ptr<Client>, PeerHash> clients_;
  std::vector<Job*> touched_;
  std::vector<std::shared_ptr<Client>> listed_;
  std::set<transport::Peer> paused_;  // clients whose pause will end, or that have got new credit
  std::vector<JobId> left_;
};

}  // namespace optserve::scheduler
