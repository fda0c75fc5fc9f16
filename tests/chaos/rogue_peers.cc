#include "rogue_peers.h"

#include <sys/socket.h>
#include <unistd.h>

#include <random>

#include "base/error.h"
#include "job_plan.h"
#include "ledger.h"
#include "protocol/codec.h"
#include "sockets.h"

namespace optserve::chaos {
namespace {

constexpr size_t kEndlessBytesMax = 32 << 20;  // the most that one peer sends
constexpr int kSocketSeconds = 2;

// ZMTP 3.0: the greeting of a peer with the NULL mechanism, and the command that ends its handshake.
std::string greeting() {
  std::string bytes = "\xff";
  bytes.append(8, '\0').append("\x7f\x03");
  bytes.append(1, '\0').append("NULL").append(16, '\0');
  bytes.append(1, '\0').append(31, '\0');
  return bytes;
}

std::string ready_command() {
  std::string body("\x05READY\x0bSocket-Type", 18);
  body.append(3, '\0').append(
      "\x06"
      "DEALER");
  return std::string("\x04") + static_cast<char>(body.size()) + body;
}

std::string frame(std::string_view payload, bool more) {
  std::string bytes(1, static_cast<char>(0x02 | (more ? 1 : 0)));  // a long frame
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(payload.size() >> shift);
  return bytes.append(payload);
}

std::string random_bytes(std::mt19937_64& random, size_t size) {
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

// A message of the protocol with some bytes changed or cut off, or bytes that are no message at all.
std::string bad_message(std::mt19937_64& random) {
  if (random() % 3 == 0) return random_bytes(random, random() % 200);
  protocol::Submit submit{1, true, {variant_spec(random() % kVariants)}};
  submit.jobs[0].model = "no-such-model";
  std::string bytes = protocol::encode(submit);
  for (int i = 0; i < 8; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
  if (random() % 3 == 0) bytes.resize(random() % bytes.size());
  return bytes;
}

void send_endless_multipart(int socket) {
  const std::string part = frame(std::string(1000, 'm'), true);
  for (size_t sent = 0; sent < kEndlessBytesMax && send_all(socket, part);) sent += part.size();
}

void send_kind(int socket, Garbage kind, std::mt19937_64& random) {
  if (kind == Garbage::kRandomBytes) {
    send_all(socket, random_bytes(random, 1 + random() % 5000));
    return;
  }
  send_all(socket, greeting());
  if (kind == Garbage::kAfterGreeting) {
    send_all(socket, random_bytes(random, 1 + random() % 5000));
    return;
  }
  send_all(socket, ready_command());
  if (kind == Garbage::kBadMessages) {
    for (int i = 0; i < 200 && send_all(socket, frame(bad_message(random), random() % 20 == 0)); ++i) {
    }
  } else if (kind == Garbage::kEndlessMultipart) {
    send_endless_multipart(socket);
  } else {
    std::string header("\x02\x00\x00\x01", 4);  // announces 2^40 bytes
    send_all(socket, header.append(5, '\0') + "and so on");
  }
}

}  // namespace

void RoguePeers::hold(int64_t until_ms) const {
  while (!stopping_.load() && now_ms() < until_ms) std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

void RoguePeers::send_garbage(const TcpAddress& to, Garbage kind, uint64_t seed, int64_t hold_ms) {
  threads_.emplace_back([this, to, kind, seed, until = now_ms() + hold_ms] {
    std::mt19937_64 random(seed);
    const int socket = connect_to(to, kSocketSeconds);
    if (socket < 0) return;
    send_kind(socket, kind, random);
    hold(until);
    close(socket);
  });
}

void RoguePeers::flood(const TcpAddress& to, int count, int64_t hold_ms) {
  threads_.emplace_back([this, to, count, until = now_ms() + hold_ms] {
    std::vector<int> sockets;
    for (int i = 0; i < count && !stopping_.load() && now_ms() < until; ++i) {
      const int socket = connect_to(to, kSocketSeconds);
      if (socket < 0) continue;
      if (i % 2 == 0) send_all(socket, greeting().substr(0, 10));
      sockets.push_back(socket);
    }
    hold(until);
    for (const int socket : sockets) close(socket);
  });
}

void RoguePeers::submit_and_never_read(const TcpAddress& to, uint64_t seed, int64_t hold_ms) {
  threads_.emplace_back([this, to, seed, until = now_ms() + hold_ms] {
    const int socket = connect_to(to, kSocketSeconds);
    if (socket < 0) return;
    const int small = 2048;
    setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    send_all(socket, greeting() + ready_command());
    for (uint64_t i = 0; i < 20; ++i) {
      protocol::JobSpec job = variant_spec(i % kVariants);
      job.key = "deaf-" + std::to_string(seed) + "-" + std::to_string(i);
      job.ttl_ms = 30'000;
      if (!send_all(socket, frame(protocol::encode(protocol::Submit{i + 1, true, {job}}), false))) break;
    }
    hold(until);
    close(socket);
  });
}

void RoguePeers::stop() {
  stopping_.store(true);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  stopping_.store(false);
}

}  // namespace optserve::chaos
