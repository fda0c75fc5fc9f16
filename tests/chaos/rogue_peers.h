// Hostile peers, over plain TCP. They send limited amounts and stay for a limited time. Each call runs in a thread of
// its own, which stop() ends.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <string>
#include <thread>
#include <vector>

#include "tcp_proxy.h"

namespace optserve::chaos {

enum class Garbage { kRandomBytes, kAfterGreeting, kBadMessages, kEndlessMultipart, kHugeFrame };
inline constexpr int kGarbageKinds = 5;

class RoguePeers {
 public:
  ~RoguePeers() { stop(); }

  // Opens a connection and sends garbage of one kind until it is closed or `hold_ms` are over.
  void send_garbage(const TcpAddress& to, Garbage kind, uint64_t seed, int64_t hold_ms);
  // Opens `count` connections, half of which say nothing and half of which stop after their greeting.
  void flood(const TcpAddress& to, int count, int64_t hold_ms);
  // Submits jobs with keys of its own and never reads an answer.
  void submit_and_never_read(const TcpAddress& to, uint64_t seed, int64_t hold_ms);
  void stop();

 private:
  void hold(int64_t until_ms) const;

  std::atomic<bool> stopping_{false};
  std::list<std::thread> threads_;
};

}  // namespace optserve::chaos
