#include "simulation/network.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "protocol/codec.h"
#include "simulation/nodes/process.h"
#include "simulation/nodes/scheduler_node.h"

namespace optserve::simulation {
namespace {

using protocol::Message;

constexpr size_t kRemembered = 64;

// As the receiver reads it; the digest is of its bytes.
uint64_t through_the_wire(Message& message) {
  const std::string bytes = protocol::encode(message);
  auto decoded = protocol::decode(bytes, limits::kInternalMessageBytesMax);
  check(decoded.ok(), "a message that cannot be decoded");
  message = std::move(decoded).value();
  return std::hash<std::string>()(bytes);
}

}  // namespace

void Network::add(Process& process) {
  process.number = static_cast<uint32_t>(links_.size());
  links_.emplace_back().process = &process;
}

uint64_t Network::connection_of(const transport::Peer& peer) {
  uint64_t number = 0;
  std::from_chars(peer.route.data(), peer.route.data() + peer.route.size(), number);
  return number;
}

transport::Peer Network::peer_of(uint64_t connection) const {
  return {links_[connections_.at(connection).process].process->port(), std::to_string(connection)};
}

void Network::connect(Process& process) {
  Link& link = links_[process.number];
  if (link.connection != 0 || std::exchange(link.connecting, true)) return;
  env_.queue.after<&Network::try_connect>(env_.dice.between(milliseconds(1), milliseconds(50)), *this, process.number);
}

void Network::try_connect(uint64_t number) {
  Link& link = links_[number];
  if (link.connection != 0 || !link.process->is_running()) {
    link.connecting = false;
    return;
  }
  const bool blocked = std::max(link.blocked[0], link.blocked[1]) > env_.now();
  if (blocked || link.process->is_paused() || !scheduler_->accepts_connections()) {
    env_.queue.after<&Network::try_connect>(env_.dice.between(milliseconds(100), milliseconds(300)), *this, number);
    return;
  }
  link.connecting = false;
  link.connection = next_connection_++;
  connections_[link.connection] = {static_cast<uint32_t>(number), true, true, env_.now(), env_.now()};
  env_.note("connected", static_cast<int>(number), "", link.connection);
  link.process->connected();
}

void Network::disconnect(Process& process) {
  Link& link = links_[process.number];
  if (const uint64_t connection = std::exchange(link.connection, 0)) close_both(connection);
}

void Network::close_both(uint64_t connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  scheduler_sees_end(connection);
  process_sees_end(connection);
}

// Its loop is told, as soon as it turns.
void Network::scheduler_sees_end(uint64_t connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end() || !std::exchange(found->second.scheduler_open, false)) return;
  untold_ends_[connection] = found->second.process;
  env_.queue.after<&Network::tell_end>(env_.dice.between(Duration::zero(), milliseconds(2)), *this, connection);
}

void Network::tell_end(uint64_t connection) {
  const auto found = untold_ends_.find(connection);
  const Process& process = *links_[found->second].process;
  untold_ends_.erase(found);
  env_.note("end told", static_cast<int>(process.number), "", connection);
  scheduler_->connection_ended({process.port(), std::to_string(connection)});
}

void Network::process_sees_end(uint64_t connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  found->second.process_open = false;
  Link& link = links_[found->second.process];
  if (link.connection == connection) {
    link.connection = 0;
    if (link.process->is_running()) connect(*link.process);
  }
  forget_if_closed(connection);
}

void Network::forget_if_closed(uint64_t connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  if (!found->second.process_open && !found->second.scheduler_open) connections_.erase(found);
}

void Network::cut(uint32_t process, Cut how) {
  const uint64_t connection = links_[process].connection;
  if (connection == 0) return;
  env_.note("cut", static_cast<int>(process), "", static_cast<uint64_t>(how));
  // What was received, but not read, is read although the connection has ended.
  if (env_.dice.chance(0.3)) {
    for (Flight& flight : flights_) {
      if (flight.connection == connection && flight.direction == Direction::kUp) flight.survives = true;
    }
  }
  if (how == Cut::kBothKnow) {
    close_both(connection);
    return;
  }
  env_.queue.after<&Network::end_of_silence>(kConnectionLife, *this, connection);
  if (how == Cut::kProcessKnows) {
    process_sees_end(connection);
  } else {
    scheduler_sees_end(connection);
  }
}

void Network::end_of_silence(uint64_t connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  const Process& process = *links_[found->second.process].process;
  scheduler_sees_end(connection);
  if (process.is_paused()) {  // it learns when it goes on
    env_.queue.at<&Network::end_of_silence>(process.paused_until() + milliseconds(1), *this, connection);
    return;
  }
  close_both(connection);
}

void Network::block(uint32_t process, Direction direction, Instant until) {
  Link& link = links_[process];
  Instant& blocked = link.blocked[static_cast<size_t>(direction)];
  blocked = std::max(blocked, until);
  env_.note("block", static_cast<int>(process), direction == Direction::kUp ? "up" : "down");
  env_.queue.after<&Network::check_block>(kConnectionLife, *this, process);
}

// Silence in one direction ends a connection: the end that hears nothing closes it, and the other hears that.
void Network::check_block(uint64_t process) {
  Link& link = links_[process];
  if (std::max(link.blocked[0], link.blocked[1]) <= env_.now() || link.connection == 0) return;
  close_both(link.connection);
}

void Network::process_silent_for_long(uint32_t process) {
  if (const uint64_t connection = links_[process].connection) {
    env_.queue.after<&Network::end_of_silence>(kConnectionLife, *this, connection);
  }
}

void Network::scheduler_silent_for_long() {
  for (const Link& link : links_) {
    if (link.connection != 0) env_.queue.after<&Network::end_of_silence>(kConnectionLife, *this, link.connection);
  }
}

void Network::scheduler_gone() {
  for (Flight& flight : flights_) flight.survives = false;
  std::vector<uint64_t> all;
  for (const Link& link : links_) {
    if (link.connection != 0) all.push_back(link.connection);
  }
  for (const uint64_t connection : all) close_both(connection);
  for (auto it = connections_.begin(); it != connections_.end();) {
    it->second.scheduler_open = false;
    it = it->second.process_open ? std::next(it) : connections_.erase(it);
  }
}

void Network::heal() {
  mischief = {};
  for (Link& link : links_) {
    link.blocked[0] = link.blocked[1] = link.slow_until = {};
    if (link.process->is_running()) connect(*link.process);
  }
}

bool Network::up(Process& from, Message message) {
  const Link& link = links_[from.number];
  if (link.connection == 0) return false;
  if (remember_ && std::holds_alternative<protocol::Tokens>(message)) {
    Flight old{message, link.connection, from.number, Direction::kUp, true};
    if (remembered_.size() < kRemembered) {
      remembered_.push_back(std::move(old));
    } else {
      remembered_[env_.dice.below(kRemembered)] = std::move(old);
    }
  }
  send(link.connection, Direction::kUp, std::move(message));
  return true;
}

Sent Network::down(const transport::Peer& to, Message message) {
  const auto found = connections_.find(connection_of(to));
  if (found == connections_.end() || !found->second.scheduler_open) return Sent::kGone;
  if (links_[found->second.process].slow_until > env_.now()) return Sent::kSlow;
  send(found->first, Direction::kDown, std::move(message));
  return Sent::kYes;
}

void Network::send(uint64_t number, Direction direction, Message message) {
  Connection& connection = connections_.at(number);
  Flight flight{std::move(message), number, connection.process, direction, false};
  tamper(flight);
  const auto delay = [&] {
    return env_.dice.chance(0.01) ? env_.dice.between(milliseconds(1), milliseconds(50))
                                  : env_.dice.between(microseconds(50), milliseconds(2));
  };
  Instant due = env_.now() + delay();
  if (env_.dice.chance(mischief.loss)) {
    env_.note("lost", static_cast<int>(flight.process), protocol::message_name(flight.message).data());
    return;
  }
  if (env_.is_planted(Plant::kLostWork) && std::holds_alternative<protocol::Dispatch>(flight.message) &&
      env_.dice.chance(0.1)) {
    return;
  }
  if (env_.dice.chance(mischief.repetition)) launch(flight, due + env_.dice.heavy_tail(milliseconds(1), seconds(10)));
  if (env_.dice.chance(mischief.long_delay)) due += env_.dice.between(milliseconds(100), seconds(5));
  if (!env_.dice.chance(mischief.overtaking)) {
    Instant& last = direction == Direction::kUp ? connection.last_up : connection.last_down;
    last = due = std::max(due, last);
  }
  launch(std::move(flight), due);
}

void Network::launch(Flight flight, Instant due) {
  uint64_t place = flights_.size();
  if (free_flights_.empty()) {
    flights_.push_back(std::move(flight));
  } else {
    place = free_flights_.back();
    free_flights_.pop_back();
    flights_[place] = std::move(flight);
  }
  env_.queue.at<&Network::arrive>(due, *this, place);
}

void Network::arrive(uint64_t place) {
  {
    const Flight& waiting = flights_[place];
    const Instant blocked = links_[waiting.process].blocked[static_cast<size_t>(waiting.direction)];
    if (blocked > env_.now()) {
      env_.queue.at<&Network::arrive>(blocked, *this, place);
      return;
    }
  }
  Flight flight = std::move(flights_[place]);
  flights_[place].connection = 0;
  free_flights_.push_back(place);
  const Link& link = links_[flight.process];
  const auto found = connections_.find(flight.connection);
  const bool up = flight.direction == Direction::kUp;
  const bool open = found != connections_.end() && (up ? found->second.scheduler_open : found->second.process_open);
  if (!open && !flight.survives) return;
  env_.note(up ? "to scheduler" : "to process", static_cast<int>(flight.process),
            protocol::message_name(flight.message).data(), env_.settings.large ? 0 : through_the_wire(flight.message));
  if (up) {
    scheduler_->receive({link.process->port(), std::to_string(flight.connection)}, std::move(flight.message));
  } else if (link.connection == flight.connection) {
    link.process->receive(std::move(flight.message));
  }
}

void Network::tamper(Flight& flight) {
  if (env_.is_planted(Plant::kOtherEnd) && env_.dice.chance(0.2)) {
    if (const auto* finished = std::get_if<protocol::JobFinished>(&flight.message)) {
      Flight other = flight;
      std::get<protocol::JobFinished>(other.message).result.text = finished->result.text + "?";
      launch(std::move(other), env_.now() + milliseconds(20));
    }
  }
  if (env_.is_planted(Plant::kShiftedText)) {
    if (auto* events = std::get_if<protocol::JobEvents>(&flight.message)) {
      for (protocol::JobEvent& event : events->events) {
        if (event.text_offset > 0 && env_.dice.chance(0.1)) --event.text_offset;
      }
    }
  }
}

void Network::replay_old_tokens(uint64_t present_term) {
  for (Flight& flight : remembered_) {
    auto* tokens = std::get_if<protocol::Tokens>(&flight.message);
    if (tokens == nullptr || !env_.dice.chance(0.3)) continue;
    // They come over the process's present connection, and lie.
    const uint64_t connection = links_[flight.process].connection;
    if (connection == 0) continue;
    protocol::Tokens lies = *tokens;
    if (!scheduler_->make_stale(lies, present_term)) continue;
    env_.note("replay", static_cast<int>(flight.process), "Tokens");
    Flight replay{std::move(lies), connection, flight.process, Direction::kUp, false};
    launch(std::move(replay), env_.now() + env_.dice.between(milliseconds(1), milliseconds(100)));
  }
}

}  // namespace optserve::simulation
