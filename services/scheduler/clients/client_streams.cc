#include "scheduler/clients/client_streams.h"

#include <algorithm>
#include <utility>

#include "scheduler/jobs/whole_characters.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kEventsPerMessage = 1'024;
constexpr size_t kEventBytesPerMessage = 256 << 10;
constexpr size_t kMissedMax = 10'000;
constexpr uint64_t kPieceBytesMin = 64;  // text of one event, however little credit is left

}  // namespace

std::shared_ptr<Client> ClientStreams::client(const transport::Peer& peer) {
  std::shared_ptr<Client>& client = clients_[peer];
  if (client == nullptr) {
    client = std::make_shared<Client>();
    client->peer = peer;
  }
  return client;
}

bool ClientStreams::subscribe(Job& job, const std::shared_ptr<Client>& client, const StreamStart& start) {
  std::erase_if(job.followers().subscriptions,
                [&](const Subscription& s) { return s.client == client || s.client->gone; });
  if (job.followers().subscriptions.size() >= options_.subscriptions_per_job_max) return false;
  const uint64_t digest = start.text_offset == 0 ? 0 : start.text_digest;
  job.followers().subscriptions.push_back({client, start.text_offset, start.after, digest});
  if (job.is_cancelled_when_left()) client->leavable.insert(job.id);
  touch(job);
  return true;
}

void ClientStreams::hold(Job& job, const transport::Peer& peer, uint64_t after) {
  for (Subscription& subscription : job.followers().subscriptions) {
    if (subscription.client->peer == peer) subscription.after = std::max(subscription.after, after);
  }
}

void ClientStreams::touch(Job& job) {
  if (job.followers().events_pending || job.followers().subscriptions.empty()) return;
  job.followers().events_pending = true;
  touched_.push_back(&job);
}

void ClientStreams::list(const std::shared_ptr<Client>& client) {
  if (std::exchange(client->listed, true)) return;
  listed_.push_back(client);
}

void ClientStreams::miss(Client& client, const JobId& job) {
  client.missed.push(job);
  if (client.missed.size() <= kMissedMax) return;
  on_gone(transport::Peer(client.peer));  // it does not read at all: it has to attach again
}

void ClientStreams::add_events(Job& job, Instant now) {
  job.followers().events_pending = false;
  const bool place_pending =
      std::exchange(job.followers().place_pending, false) && job.life.last_open_stage() == Stage::kWaiting;
  const bool anyway = std::exchange(job.followers().tell_anyway, false) || place_pending;
  bool any_gone = false;
  for (Subscription& subscription : job.followers().subscriptions) {
    Client& client = *subscription.client;
    any_gone = any_gone || client.gone;
    if (client.gone) continue;
    if (!takes_something(client, now)) {
      miss(client, job.id);
    } else if (add_event(job, subscription, anyway)) {
      list(subscription.client);
    }
  }
  if (any_gone) std::erase_if(job.followers().subscriptions, [](const Subscription& s) { return s.client->gone; });
}

// Text that is computed again after a restart of the scheduler may differ, if the model's numbers depend on what else
// is in the batch.
void ClientStreams::compare(const Job& job, Subscription& subscription) {
  const std::string_view text(job.output().text);
  if (subscription.text_digest == 0 || text.size() < subscription.text_offset) return;
  const uint64_t digest = protocol::text_digest(text.substr(0, subscription.text_offset));
  if (std::exchange(subscription.text_digest, 0) == digest) return;
  subscription.text_offset = 0;
  subscription.restarts = true;
}

bool ClientStreams::add_event(Job& job, Subscription& subscription, bool anyway) {
  Client& client = *subscription.client;
  compare(job, subscription);
  const bool has_text = job.output().text.size() > subscription.text_offset;
  if (!has_text && job.is_generation() && !anyway) return false;
  protocol::JobEvent event;
  event.job = job.id;
  event.text_offset = subscription.text_offset;
  if (has_text) {
    const std::string_view rest = std::string_view(job.output().text).substr(subscription.text_offset);
    event.text = whole_characters(rest, std::max(client.credit.room(), kPieceBytesMin));
    subscription.text_offset += event.text.size();
  }
  event.restarted = has_text && std::exchange(subscription.restarts, false);
  event.tokens = static_cast<uint32_t>(job.output().ids.size());
  event.progress_done = job.output().bytes_done;
  event.progress_total = job.output().bytes_total;
  event.state = job.state();
  if (job.life.last_open_stage() == Stage::kWaiting) {
    event.position = job.followers().told_position;
    event.eta_ms = job.followers().told_eta_ms;
  }
  client.credit.spend(protocol::stream_cost(event));
  client.events_bytes += event.text.size();
  client.events_after = std::max(client.events_after, subscription.after);
  client.events.events.push_back(std::move(event));
  if (job.output().text.size() > subscription.text_offset) miss(client, job.id);
  return true;
}

void ClientStreams::finish(Job& job, const SharedResult& result, uint64_t sequence) {
  touch(job);
  for (const Subscription& subscription : job.followers().subscriptions) {
    send_result(subscription.client, result, std::max(sequence, subscription.after));
    subscription.client->leavable.erase(job.id);
  }
}

void ClientStreams::send_result(const std::shared_ptr<Client>& client, const SharedResult& result, uint64_t sequence) {
  if (client->gone) return;
  client->finished.emplace_back(result, sequence);
  list(client);
}

void ClientStreams::send_events(Client& client, uint64_t durable, transport::Outbox& out) {
  if (client.events.events.empty()) return;
  // Events whose record is on disk must not queue behind messages that wait for theirs.
  if (client.events_after <= durable) client.events_after = 0;
  if (client.events.events.size() <= kEventsPerMessage && client.events_bytes <= kEventBytesPerMessage) {
    out.send_after(client.events_after, client.peer, std::exchange(client.events, {}));
  } else {
    protocol::JobEvents part;
    size_t bytes = 0;
    for (protocol::JobEvent& event : client.events.events) {
      if (part.events.size() >= kEventsPerMessage || bytes + event.text.size() > kEventBytesPerMessage) {
        if (!part.events.empty()) out.send_after(client.events_after, client.peer, std::exchange(part, {}));
        bytes = 0;
      }
      bytes += event.text.size();
      part.events.push_back(std::move(event));
    }
    out.send_after(client.events_after, client.peer, std::move(part));
    client.events.events.clear();
  }
  client.events_bytes = 0;
  client.events_after = 0;
}

void ClientStreams::flush(uint64_t durable, Instant now, transport::Outbox& out) {
  for (Job* job : std::exchange(touched_, {})) add_events(*job, now);
  for (const std::shared_ptr<Client>& client : std::exchange(listed_, {})) {
    client->listed = false;
    if (client->gone) continue;
    send_events(*client, durable, out);
    for (auto& [result, sequence] : std::exchange(client->finished, {})) {
      if (!takes_something(*client, now)) {
        miss(*client, result->job);
      } else {
        client->credit.spend(protocol::stream_cost(*result));
        protocol::JobFinished finished{*result};
        finished.result.prompt.clear();  // a follower has it
        out.send_after(sequence, client->peer, std::move(finished));
      }
    }
  }
}

bool ClientStreams::on_credit(const transport::Peer& peer, const protocol::Credit& credit, Instant now) {
  Client& known = *client(peer);
  if (!known.credit.grant(credit.consumed, credit.window)) return false;
  known.credit_at = now;
  if (!known.missed.empty()) paused_.insert(peer);
  return true;
}

size_t ClientStreams::on_gone(const transport::Peer& peer) {
  const auto found = clients_.find(peer);
  if (found == clients_.end()) return 0;
  const auto followed = static_cast<size_t>(found->second.use_count() - 1);  // each of them holds it
  Client& client = *found->second;
  client.gone = true;
  client.events.events.clear();
  client.finished.clear();
  client.missed.clear();
  left_.insert(left_.end(), client.leavable.begin(), client.leavable.end());
  client.leavable.clear();
  paused_.erase(peer);
  clients_.erase(found);
  return followed;
}

void ClientStreams::on_slow(const transport::Peer& peer, const protocol::JobEvents& events, Instant now) {
  for (const protocol::JobEvent& event : events.events) on_slow(peer, event.job, protocol::stream_cost(event), now);
}

void ClientStreams::on_slow(const transport::Peer& peer, const protocol::JobResult& result, Instant now) {
  on_slow(peer, result.job, protocol::stream_cost(result), now);
}

void ClientStreams::on_slow(const transport::Peer& peer, const JobId& job, size_t cost, Instant now) {
  const auto found = clients_.find(peer);
  if (found == clients_.end()) return;
  found->second->credit.take_back(cost);
  found->second->paused_until = now + options_.slow_client_pause;
  paused_.insert(peer);
  miss(*found->second, job);
}

void ClientStreams::rewind(Job& job, const transport::Peer& peer, const protocol::JobEvent& event) {
  for (Subscription& subscription : job.followers().subscriptions) {
    if (subscription.client->peer != peer) continue;
    subscription.restarts = subscription.restarts || event.restarted;
    subscription.text_offset = std::min(subscription.text_offset, event.text_offset);
  }
}

std::vector<ResumedClient> ClientStreams::take_resumed(Instant now) {
  std::vector<ResumedClient> resumed;
  for (auto it = paused_.begin(); it != paused_.end();) {
    const std::shared_ptr<Client> client = clients_.at(*it);
    if (client->paused_until > now) {
      ++it;
      continue;
    }
    // Serves as many jobs as its credit allows; the others keep their places.
    const uint64_t room = client->credit.room();
    if (room > 0) {
      resumed.push_back({client, client->missed.take(room / protocol::stream_cost(protocol::JobEvent{}) + 1)});
    }
    it = paused_.erase(it);
  }
  return resumed;
}

bool ClientStreams::has_followers(const Job& job) const {
  return std::any_of(job.followers().subscriptions.begin(), job.followers().subscriptions.end(),
                     [](const Subscription& s) { return !s.client->gone; });
}

void ClientStreams::probe(const Job& job, transport::Outbox& out) const {
  for (const Subscription& subscription : job.followers().subscriptions) {
    const Client& client = *subscription.client;
    if (!client.gone && client.credit.room() == 0) out.send(client.peer, protocol::Ping{});
  }
}

size_t ClientStreams::following() const {
  // Each job that a client follows holds it.
  return static_cast<size_t>(
      std::count_if(clients_.begin(), clients_.end(), [](const auto& item) { return item.second.use_count() > 1; }));
}

void ClientStreams::sweep(Instant now) {
  std::erase_if(clients_, [&](const auto& item) {
    const Client& client = *item.second;
    const bool has_credit = client.credit.is_on() && now - client.credit_at < options_.silent_client_after;
    return item.second.use_count() == 1 && client.missed.empty() && !has_credit;
  });
}

}  // namespace optserve::scheduler
