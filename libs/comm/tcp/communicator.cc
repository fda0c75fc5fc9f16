// Ranks on any hosts, over TCP, as a star: rank 0 gathers what the others send, adds it in the order of the ranks and
// sends the result to all. It is simple rather than fast, since it serves groups of CPUs, and groups of GPUs only as
// the control communicator beside NCCL.
#include "comm/communicator.h"

#include <algorithm>
#include <atomic>

#include "base/clock.h"
#include "base/limits.h"
#include "comm/reduction.h"
#include "comm/tcp/frames.h"
#include "comm/tcp/lifelines.h"
#include "comm/tcp/link.h"
#include "comm/tcp/rendezvous.h"

namespace optserve::comm {

namespace {

using namespace tcp;

constexpr size_t kChunkBytes = 1 << 18;
// The other ranks wait longer for rank 0 than it waits for them, since rank 0 can say which rank is late: twice their
// timeout, but at most this much longer.
constexpr milliseconds kLongerForRank0Max{1'000};

// One exchange. All of its frames must describe it in the same way.
struct Part {
  Operation operation;
  int root;
  size_t total;  // bytes of the whole operation
  size_t size;   // bytes of a frame
};

class TcpCommunicator final : public Communicator {
 public:
  TcpCommunicator(const TcpGroupOptions& options, const Clock& clock, Party party)
      : rank_(options.rank),
        world_(options.world),
        timeout_(options.timeout_ms),
        clock_(clock),
        token_(party.token),
        data_(std::move(party.data)),
        blocks_(rank_ == 0 ? static_cast<size_t>(world_ - 1) * kChunkBytes : 0),
        lifelines_(std::move(party.lifelines), {rank_, token_, [this] { shut_down_data(); }, options.on_stuck}) {}

  int rank() const override { return rank_; }
  int world() const override { return world_; }

  void all_reduce_sum(Tensor x) override {
    check_host_block(x);
    begin(Operation::kReduce);
    for (size_t at = 0; at < x.bytes(); at += kChunkBytes) {
      const Part part{operation_, 0, x.bytes(), std::min(kChunkBytes, x.bytes() - at)};
      char* data = static_cast<char*>(x.raw()) + at;
      gather(part, data);
      if (rank_ == 0) {
        std::vector<const void*> all{data};
        for (int peer = 1; peer < world_; ++peer) all.push_back(block(peer));
        sum_in_order(x.dtype(), all, static_cast<int64_t>(part.size / dtype_bytes(x.dtype())), data);
      }
      hand_out(part, data);
    }
  }

  void all_gather(Tensor x, Tensor out) override {
    check_host_block(x);
    check_host_block(out);
    check_eq(out.bytes(), x.bytes() * static_cast<size_t>(world_), "bytes gathered");
    begin(Operation::kGather);
    for (size_t at = 0; at < x.bytes(); at += kChunkBytes) {
      const Part part{operation_, 0, x.bytes(), std::min(kChunkBytes, x.bytes() - at)};
      char* mine = static_cast<char*>(x.raw()) + at;
      gather(part, mine);
      for (int from = 0; from < world_; ++from) {
        char* target = static_cast<char*>(out.raw()) + static_cast<size_t>(from) * x.bytes() + at;
        if (rank_ == 0) std::memmove(target, from == 0 ? mine : block(from), part.size);
        hand_out(part, target);
      }
    }
  }

  void broadcast(Tensor x, int root) override {
    check_host_block(x);
    begin(Operation::kBroadcast);
    if (x.bytes() > 0) pass_on({operation_, root, x.bytes(), x.bytes()}, static_cast<char*>(x.raw()));
  }

  void broadcast_bytes(std::vector<uint8_t>& bytes, int root) override {
    begin(Operation::kBytes);
    if (rank_ == root && bytes.size() > limits::kGroupMessageBytesMax) {
      fail("rank " + std::to_string(rank_) + " sends " + std::to_string(bytes.size()) + " bytes, at most " +
           std::to_string(limits::kGroupMessageBytesMax) + " are allowed");
    }
    if (rank_ != root) {
      const int source = rank_ == 0 ? root : 0;
      const FrameHeader header = receive_header(source, no_deadline());
      if (header.operation != operation_ || header.root != root || header.total != header.size) differ(source);
      bytes.resize(header.size);  // receive_header() has bounded it
      receive_payload(source, reinterpret_cast<char*>(bytes.data()), bytes.size(), deadline());
    }
    const Part part{operation_, root, bytes.size(), bytes.size()};
    send_on(part, reinterpret_cast<const char*>(bytes.data()));
  }

  void barrier() override {
    begin(Operation::kBarrier);
    const Part part{operation_, 0, 0, 0};
    if (rank_ > 0) send(0, part, nullptr);
    for (int peer = 1; rank_ == 0 && peer < world_; ++peer) receive(peer, part, nullptr, no_deadline());
    if (rank_ > 0) receive(0, part, nullptr, no_deadline());
    for (int peer = 1; rank_ == 0 && peer < world_; ++peer) send(peer, part, nullptr);
  }

  void abort(const std::string& reason) override { lifelines_.abort(reason); }
  void throw_if_lost() override { lifelines_.throw_if_lost(); }

 private:
  void begin(Operation operation) {
    operation_ = operation;
    throw_if_lost();
  }

  Deadline deadline() const {
    const milliseconds longer = rank_ == 0 ? milliseconds(0) : std::min(timeout_, kLongerForRank0Max);
    return {clock_, clock_.now() + timeout_ + longer};
  }
  Deadline no_deadline() const { return {clock_, Instant::max()}; }
  char* block(int peer) { return blocks_.data() + static_cast<size_t>(peer - 1) * kChunkBytes; }

  // Sends every rank's bytes to rank 0, which finds those of the others in block().
  void gather(const Part& part, const char* mine) {
    if (rank_ > 0) return send(0, part, mine);
    const Deadline until = deadline();
    for (int peer = 1; peer < world_; ++peer) receive(peer, part, block(peer), until);
  }

  // Sends `data` of rank 0 to `data` of the others.
  void hand_out(const Part& part, char* data) {
    if (rank_ > 0) return receive(0, part, data, deadline());
    for (int peer = 1; peer < world_; ++peer) send(peer, part, data);
  }

  // Sends `data` of the root to `data` of the others, by way of rank 0.
  void pass_on(const Part& part, char* data) {
    if (rank_ != part.root) receive(rank_ == 0 ? part.root : 0, part, data, deadline());
    send_on(part, data);
  }

  void send_on(const Part& part, const char* data) {
    if (rank_ > 0 && rank_ == part.root) send(0, part, data);
    for (int peer = 1; rank_ == 0 && peer < world_; ++peer) {
      if (peer != part.root) send(peer, part, data);
    }
  }

  void send(int peer, const Part& part, const char* data) {
    const HeaderBytes header = encode(FrameHeader{part.operation, part.root, token_, part.total, part.size});
    const Deadline until = deadline();
    expect(link(peer).send(header, until, part.size > 0), peer);
    expect(link(peer).send({reinterpret_cast<const uint8_t*>(data), part.size}, until), peer);
  }

  void receive(int peer, const Part& part, char* data, const Deadline& until) {
    const FrameHeader header = receive_header(peer, until);
    if (header != FrameHeader{part.operation, part.root, token_, part.total, part.size}) differ(peer);
    receive_payload(peer, data, part.size, until);
  }

  FrameHeader receive_header(int peer, const Deadline& until) {
    HeaderBytes bytes;
    expect(link(peer).receive(bytes, until), peer);
    const auto header = decode_header(bytes);
    if (!header.ok()) fail("rank " + std::to_string(peer) + " sends a malformed frame: " + header.refusal().message);
    if (header.value().token != token_) {
      fail("rank " + std::to_string(peer) + " sends frames of another start of the group");
    }
    return header.value();
  }

  void receive_payload(int peer, char* data, size_t size, const Deadline& until) {
    expect(link(peer).receive({reinterpret_cast<uint8_t*>(data), size}, until), peer);
  }

  Link& link(int peer) { return data_[static_cast<size_t>(peer)]; }

  void expect(Io io, int peer) {
    if (io == Io::kDone) return;
    const std::string name = "rank " + std::to_string(peer);
    if (io == Io::kLate) fail(name + " did not come within " + std::to_string(timeout_.count()) + " ms");
    if (io == Io::kForged) fail("what came from " + name + " was changed, repeated, left out or sent by somebody else");
    lifelines_.wait_for_cause(peer);
    fail(name + " has left the group");
  }

  [[noreturn]] void differ(int peer) {
    fail("rank " + std::to_string(peer) + " calls another operation or size than rank " + std::to_string(rank_));
  }

  // Throws the reason for which the group was lost, which is `what` unless an earlier one is known.
  [[noreturn]] void fail(const std::string& what) {
    abort("group aborted by rank " + std::to_string(rank_) + ": " + what + " (" + name_of(operation_) + ")");
    throw_if_lost();
    throw Error(what);
  }

  void shut_down_data() const {
    for (const Link& link : data_) link.socket().shut_down();
  }

  const int rank_;
  const int world_;
  const milliseconds timeout_;
  const Clock& clock_;
  const uint64_t token_;
  std::vector<Link> data_;                     // by the peer's rank
  std::vector<char> blocks_;                   // on rank 0: one chunk of each other rank
  Operation operation_ = Operation::kBarrier;  // the current one
  Lifelines lifelines_;                        // the last member, since its thread uses data_
};

}  // namespace

std::unique_ptr<Communicator> make_tcp_communicator(const TcpGroupOptions& options, const Clock& clock) {
  check(
      options.world >= 1 && options.world <= limits::kWorldSizeMax && options.rank >= 0 && options.rank < options.world,
      "rank of a TCP group");
  return std::make_unique<TcpCommunicator>(options, clock, meet(options, clock));
}

}  // namespace optserve::comm
