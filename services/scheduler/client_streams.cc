#include "scheduler/client_streams.h"

#include <algorithm>
#include <utility>

namespace optserve::scheduler {
namespace {

constexpr size_t kEventsPerMessage = 1'024;
constexpr size_t kEventBytesPerMessage = 256 << 10;
constexpr size_t kMissedMax = 10'000;

}  // namespace

std::shared_ptr<Client> ClientStreams::client(const transport::Peer& peer) {
  std::shared_ptr<Client>& client = clients_[peer];
  if (client == nullptr) {
    client = std::make_shared<Client>();
    client->peer = peer;
  }
  return client;
}

bool ClientStreams::subscribe(Job& job, const std::shared_ptr<Client>& client, uint64_t text_offset, uint64_t after) {
  std::erase_if(job.subscriptions, [&](const Subscription& s) { return s.client == client || s.client->gone; });
  if (job.subscriptions.size() >= options_.subscriptions_per_job_max) return false;
  job.subscriptions.push_back({client, text_offset, after});
  touch(job);
  return true;
}

void ClientStreams::touch(Job& job) {
  if (job.events_pending || job.subscriptions.empty()) return;
  job.events_pending = true;
  touched_.push_back(&job);
}

void ClientStreams::list(const std::shared_ptr<Client>& client) {
  if (std::exchange(client->listed, true)) return;
  listed_.push_back(client);
}

void ClientStreams::miss(Client& client, const JobId& job) {
  client.missed.insert(job);
  if (client.missed.size() <= kMissedMax) return;
  on_gone(transport::Peer(client.peer));  // never reads: it has to attach again
}

void ClientStreams::add_events(Job& job, Instant now) {
  job.events_pending = false;
  const bool place_pending = std::exchange(job.place_pending, false) && job.stage == Stage::kWaiting;
  bool any_gone = false;
  for (Subscription& subscription : job.subscriptions) {
    Client& client = *subscription.client;
    any_gone = any_gone || client.gone;
    if (client.gone) continue;
    if (client.paused_until > now) {
      miss(client, job.id);
      continue;
    }
    const bool has_text = job.text.size() > subscription.text_offset;
    if (!has_text && job.is_generation() && !place_pending) continue;
    protocol::JobEvent event;
    event.job = job.id;
    event.text_offset = subscription.text_offset;
    if (has_text) event.text.assign(job.text, subscription.text_offset, std::string::npos);
    event.tokens = static_cast<uint32_t>(job.output.size());
    event.progress_done = job.progress_done;
    event.progress_total = job.progress_total;
    if (job.stage == Stage::kWaiting) {
      event.position = job.told_position;
      event.eta_ms = job.told_eta_ms;
    }
    if (has_text) subscription.text_offset = job.text.size();
    client.events_bytes += event.text.size();
    client.events_after = std::max(client.events_after, subscription.after);
    client.events.events.push_back(std::move(event));
    list(subscription.client);
  }
  if (any_gone) std::erase_if(job.subscriptions, [](const Subscription& s) { return s.client->gone; });
}

void ClientStreams::finish(Job& job, const SharedResult& result, uint64_t sequence) {
  touch(job);
  for (const Subscription& subscription : job.subscriptions) {
    send_result(subscription.client, result, std::max(sequence, subscription.after));
  }
}

void ClientStreams::send_result(const std::shared_ptr<Client>& client, const SharedResult& result, uint64_t sequence) {
  if (client->gone) return;
  client->finished.emplace_back(result, sequence);
  list(client);
}

void ClientStreams::send_events(Client& client, uint64_t durable, transport::Outbox& out) {
  if (client.events.events.empty()) return;
  // What need not wait must not queue behind what does.
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
      if (client->paused_until > now) {
        miss(*client, result->job);
      } else {
        out.send_after(sequence, client->peer, protocol::JobFinished{*result});
      }
    }
  }
}

void ClientStreams::on_gone(const transport::Peer& peer) {
  const auto found = clients_.find(peer);
  if (found == clients_.end()) return;
  Client& client = *found->second;
  client.gone = true;
  client.events.events.clear();
  client.finished.clear();
  client.missed.clear();
  paused_.erase(peer);
  clients_.erase(found);
}

void ClientStreams::on_slow(const transport::Peer& peer, const protocol::JobEvents& events, Instant now) {
  for (const protocol::JobEvent& event : events.events) on_slow(peer, event.job, now);
}

void ClientStreams::on_slow(const transport::Peer& peer, const JobId& job, Instant now) {
  const auto found = clients_.find(peer);
  if (found == clients_.end()) return;
  found->second->paused_until = now + options_.slow_client_pause;
  paused_.insert(peer);
  miss(*found->second, job);
}

void ClientStreams::rewind(Job& job, const transport::Peer& peer, uint64_t text_offset) {
  for (Subscription& subscription : job.subscriptions) {
    if (subscription.client->peer == peer) subscription.text_offset = std::min(subscription.text_offset, text_offset);
  }
}

std::vector<std::pair<std::shared_ptr<Client>, std::vector<JobId>>> ClientStreams::take_resumed(Instant now) {
  std::vector<std::pair<std::shared_ptr<Client>, std::vector<JobId>>> resumed;
  for (auto it = paused_.begin(); it != paused_.end();) {
    const std::shared_ptr<Client> client = clients_.at(*it);
    if (client->paused_until > now) {
      ++it;
      continue;
    }
    resumed.emplace_back(client, std::vector<JobId>(client->missed.begin(), client->missed.end()));
    client->missed.clear();
    it = paused_.erase(it);
  }
  return resumed;
}

void ClientStreams::sweep() {
  std::erase_if(clients_, [](const auto& item) { return item.second.use_count() == 1 && item.second->missed.empty(); });
}

}  // namespace optserve::scheduler
