#include "comm/tcp/lifelines.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

namespace optserve::comm::tcp {
namespace {

constexpr seconds kCauseTime{2};
constexpr seconds kLetGoTime{1};  // between the loss of the group and on_stuck

}  // namespace

Lifelines::Lifelines(std::vector<Link> links, Options options)
    : links_(std::move(links)), options_(std::move(options)), inboxes_(links_.size()) {
  const auto is_open = [](const Link& link) { return link.is_open(); };
  if (std::none_of(links_.begin(), links_.end(), is_open)) return;  // this is a group of one rank
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) throw errno_error("eventfd");
  thread_ = std::thread([this] { watch(); });
}

Lifelines::~Lifelines() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  wake();
  if (thread_.joinable()) thread_.join();
  if (reason_.empty()) tell(Operation::kLeave, {}, -1);
  if (wake_fd_ >= 0) close(wake_fd_);
}

void Lifelines::abort(const std::string& reason) { lose(reason.empty() ? "aborted" : reason, options_.rank); }

void Lifelines::throw_if_lost() const {
  const std::lock_guard lock(mutex_);
  if (!reason_.empty()) throw Error(reason_);
}

void Lifelines::wait_for_cause(int peer) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kCauseTime, [&] { return !reason_.empty() || inboxes_[static_cast<size_t>(peer)].left; });
}

void Lifelines::watch() {
  while (wait_for_news()) {
    for (size_t peer = 0; peer < links_.size(); ++peer) {
      if (links_[peer].is_open() && !inboxes_[peer].left) hear(static_cast<int>(peer));
    }
  }
  wait_until_let_go();
}

bool Lifelines::wait_for_news() {
  std::vector<pollfd> polled{{wake_fd_, POLLIN, 0}};
  for (size_t peer = 0; peer < links_.size(); ++peer) {
    if (links_[peer].is_open() && !inboxes_[peer].left) polled.push_back({links_[peer].socket().fd(), POLLIN, 0});
  }
  poll(polled.data(), polled.size(), -1);
  const std::lock_guard lock(mutex_);
  return !stopping_ && reason_.empty();
}

// Reads what has come from a peer: an abort, its goodbye, or the end of its connection.
void Lifelines::hear(int peer) {
  Inbox& inbox = inboxes_[static_cast<size_t>(peer)];
  Link& link = links_[static_cast<size_t>(peer)];
  const std::string name = "rank " + std::to_string(peer);
  const auto received = receive_some(link.socket(), std::span(inbox.bytes).subspan(inbox.received));
  if (received < 0) return lose("group aborted by rank " + std::to_string(options_.rank) + ": " + name + " died", peer);
  inbox.received += static_cast<size_t>(received);
  const size_t header_size = link.wire_size(kHeaderBytes);
  if (inbox.received < header_size) return;
  if (!inbox.header && !read_header(inbox, link)) return lose(name + " sent a record that no rank sends", peer);
  if (inbox.header->operation == Operation::kLeave) {
    const std::lock_guard lock(mutex_);
    inbox.left = true;
    changed_.notify_all();
    return;
  }
  std::string reason(inbox.header->size, ' ');
  const size_t reason_size = link.wire_size(reason.size());
  if (inbox.received < header_size + reason_size) return;
  const auto wire = std::span<const uint8_t>(inbox.bytes).subspan(header_size, reason_size);
  if (!link.open(wire, {reinterpret_cast<uint8_t*>(reason.data()), reason.size()})) {
    return lose(name + " sent a record that no rank sends", peer);
  }
  lose(reason, peer);
}

bool Lifelines::read_header(Inbox& inbox, Link& link) const {
  HeaderBytes bytes;
  if (!link.open(std::span<const uint8_t>(inbox.bytes).first(link.wire_size(kHeaderBytes)), bytes)) return false;
  const auto header = decode_header(bytes);
  if (!header.ok() || header.value().token != options_.token) return false;
  inbox.header = header.value();
  return inbox.header->operation == Operation::kLeave || inbox.header->operation == Operation::kAbort;
}

void Lifelines::lose(const std::string& reason, int from) {
  {
    const std::lock_guard lock(mutex_);
    if (!reason_.empty()) return;
    reason_ = reason.empty() ? "aborted" : reason;
  }
  tell(Operation::kAbort, reason, from);
  options_.on_lost();
  changed_.notify_all();
  wake();
}

// Does not wait. A peer that does not read will notice the end of the connection.
void Lifelines::tell(Operation operation, const std::string& text, int except) {
  const size_t size = std::min(text.size(), kReasonBytes);
  const HeaderBytes header = encode(FrameHeader{operation, 0, options_.token, 0, size});
  for (size_t peer = 0; peer < links_.size(); ++peer) {
    Link& link = links_[peer];
    if (!link.is_open() || static_cast<int>(peer) == except) continue;
    std::vector<uint8_t> bytes;
    link.append(header, bytes);
    link.append({reinterpret_cast<const uint8_t*>(text.data()), size}, bytes);
    (void)!::send(link.socket().fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

void Lifelines::wait_until_let_go() {
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, kLetGoTime, [&] { return stopping_; }) || !options_.on_stuck) return;
  const std::string reason = reason_;
  lock.unlock();
  options_.on_stuck(reason);
}

void Lifelines::wake() const {
  const uint64_t one = 1;
  if (wake_fd_ >= 0) (void)!write(wake_fd_, &one, sizeof one);
}

}  // namespace optserve::comm::tcp
