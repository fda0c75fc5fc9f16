// The second connection of each pair of ranks: a thread waits on it, so that a dead peer or an abort is seen whatever
// the rank itself is doing. Rank 0 passes on what it learns.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/tcp_frames.h"
#include "comm/tcp_socket.h"

namespace optserve::comm::tcp {

class Lifelines {
 public:
  struct Options {
    int rank = 0;
    uint64_t token = 0;
    std::function<void()> on_lost;                            // at once, from any thread
    std::function<void(const std::string& reason)> on_stuck;  // TcpGroupOptions::on_stuck
  };
  // `sockets` by the peer's rank; a peer without a connection has one that is not open.
  Lifelines(std::vector<Socket> sockets, Options options);
  ~Lifelines();  // tells the peers that this rank leaves as it should
  Lifelines(const Lifelines&) = delete;
  Lifelines& operator=(const Lifelines&) = delete;

  // The first reason counts, here and on the peers.
  void abort(const std::string& reason);
  void throw_if_lost() const;  // Error(reason)
  // A connection to `peer` has ended: returns when it is known why, or after two seconds without an answer.
  void wait_for_cause(int peer);

 private:
  // Bytes of a peer's next message.
  struct Inbox {
    std::array<uint8_t, kHeaderBytes + kReasonBytes> bytes{};
    size_t received = 0;
    bool left = false;
  };

  void watch();
  bool wait_for_news();  // false once the rank leaves or the group is lost
  void hear(int peer);
  void lose(const std::string& reason, int from);
  void tell(Operation operation, const std::string& text, int except);
  void wait_until_let_go();
  void wake() const;

  const std::vector<Socket> sockets_;
  const Options options_;
  std::vector<Inbox> inboxes_;  // the thread's, but for `left`
  int wake_fd_ = -1;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string reason_;  // why the group is lost; empty: it is not
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace optserve::comm::tcp
