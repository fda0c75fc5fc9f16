// The second connection between rank 0 and each other rank. A thread waits on it, so that a rank learns of a dead peer
// or an abort whatever it is doing itself. Rank 0 passes on what it learns.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/tcp/frames.h"
#include "comm/tcp/link.h"

namespace optserve::comm::tcp {

class Lifelines {
 public:
  struct Options {
    int rank = 0;
    uint64_t token = 0;
    std::function<void()> on_lost;                            // called at once when the group is lost, on any thread
    std::function<void(const std::string& reason)> on_stuck;  // see TcpGroupOptions
  };
  // `links` is indexed by the rank of the peer. A link that is not open means that there is no connection to that peer.
  Lifelines(std::vector<Link> links, Options options);
  ~Lifelines();  // tells the peers that this rank leaves on purpose
  Lifelines(const Lifelines&) = delete;
  Lifelines& operator=(const Lifelines&) = delete;

  // The first reason is kept, here and on the peers.
  void abort(const std::string& reason);
  void throw_if_lost() const;  // Error(reason)
  // To be called when a connection to `peer` has ended. Returns when the reason is known, and after two seconds at
  // most.
  void wait_for_cause(int peer);

 private:
  // A peer's only message, as it stands on the wire.
  struct Inbox {
    std::array<uint8_t, kHeaderBytes + kReasonBytes + 2 * keys::kSealBytes> bytes{};
    size_t received = 0;
    std::optional<FrameHeader> header;
    bool left = false;  // the peer has said goodbye
  };

  void watch();
  bool wait_for_news();  // false once the rank leaves or the group is lost
  void hear(int peer);
  bool read_header(Inbox& inbox, Link& link) const;
  void lose(const std::string& reason, int from);
  void tell(Operation operation, const std::string& text, int except);
  void wait_until_let_go();
  void wake() const;

  std::vector<Link> links_;  // the thread receives; whoever tells sends, which happens once
  const Options options_;
  std::vector<Inbox> inboxes_;  // used by the thread alone, except for `left`
  int wake_fd_ = -1;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string reason_;  // why the group is lost; empty while it is not
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace optserve::comm::tcp
