#include "comm/tcp/rendezvous.h"

#include <poll.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "comm/tcp/frames.h"

namespace optserve::comm::tcp {
namespace {

constexpr size_t kStrangersMax = 128;  // connections that have not yet said which rank they are
constexpr milliseconds kHelloTime{5'000};
constexpr milliseconds kBindTime{10'000};
constexpr milliseconds kReportInterval{10'000};
constexpr milliseconds kRetry{100};

std::string place_of(const TcpGroupOptions& options) { return options.host + ":" + std::to_string(options.port); }

// A connection whose first record has not fully arrived.
struct Stranger {
  Accepted connection;
  Instant until;
  HelloBytes bytes{};
  size_t received = 0;
};

// The side of rank 0.
class Host {
 public:
  Host(const TcpGroupOptions& options, const Clock& clock)
      : options_(options), clock_(clock), seats_(static_cast<size_t>(options.world)), token_(random_token()) {}

  Party gather(Instant until) {
    Socket listener = open_door(std::min(until, now() + kBindTime));
    log_info("rendezvous_open", {{"address", place_of(options_)}, {"world", options_.world}});
    Instant report_at = now() + kReportInterval;
    while (!missing().empty()) {
      if (now() >= until) {
        throw Error("rank(s) " + missing() + " did not come to " + place_of(options_) + " within " +
                    std::to_string(options_.meet_timeout_ms) + " ms");
      }
      if (now() >= report_at) {
        log_info("rendezvous_waits", {{"address", place_of(options_)}, {"missing", missing()}});
        report_at = now() + kReportInterval;
      }
      wait(listener, std::min(until, report_at));
      free_left_seats();
      hear_strangers();
      accept_strangers(listener);
    }
    return start();
  }

 private:
  struct Seat {
    Socket data, lifeline;
    Id128 nonce;
    std::string address;
  };

  static uint64_t random_token() {
    uint64_t token;
    std::memcpy(&token, Id128::random().bytes.data(), sizeof token);
    return token;
  }

  // Retries for some seconds, since an earlier process of this rank may still hold the port.
  Socket open_door(Instant until) const {
    for (;;) {
      std::string cause;
      Socket listener = listen_on(options_.host, options_.port, cause);
      if (listener.is_open()) return listener;
      if (now() >= until) {
        throw Error("rank 0 cannot listen on " + place_of(options_) +
                    ", which must be an address of its host: " + cause);
      }
      poll(nullptr, 0, static_cast<int>(kRetry.count()));
    }
  }

  // The ranks that have not connected, such as "1, 3".
  std::string missing() const {
    std::string ranks;
    for (size_t rank = 1; rank < seats_.size(); ++rank) {
      if (!seats_[rank].lifeline.is_open()) ranks += (ranks.empty() ? "" : ", ") + std::to_string(rank);
    }
    return ranks;
  }

  void wait(const Socket& listener, Instant until) const {
    std::vector<pollfd> polled{{listener.fd(), POLLIN, 0}};
    for (const Seat& seat : seats_) {
      if (seat.data.is_open()) polled.push_back({seat.data.fd(), POLLIN, 0});
    }
    for (const Stranger& stranger : strangers_) {
      polled.push_back({stranger.connection.socket.fd(), POLLIN, 0});
      until = std::min(until, stranger.until);
    }
    const auto left = std::chrono::ceil<milliseconds>(until - now()).count();
    poll(polled.data(), polled.size(), static_cast<int>(std::clamp<int64_t>(left, 0, 1'000)));
  }

  // A rank that waits sends nothing, so anything to read is the end of its connection.
  void free_left_seats() {
    for (Seat& seat : seats_) {
      uint8_t byte;
      if (seat.data.is_open() && receive_some(seat.data, std::span(&byte, 1)) != 0) seat = Seat{};
    }
  }

  void hear_strangers() {
    for (Stranger& stranger : strangers_) {
      Socket& socket = stranger.connection.socket;
      const auto received = receive_some(socket, std::span(stranger.bytes).subspan(stranger.received));
      if (received > 0) stranger.received += static_cast<size_t>(received);
      if (stranger.received == kHelloBytes) {
        seat(stranger);
      } else if (received < 0 || now() >= stranger.until) {
        log_refused(stranger.connection.address, "it did not say which rank it is");
        socket.reset();
      }
    }
    std::erase_if(strangers_, [](const Stranger& one) { return !one.connection.socket.is_open(); });
  }

  void accept_strangers(const Socket& listener) {
    while (auto accepted = accept_waiting(listener)) {
      if (strangers_.size() == kStrangersMax) strangers_.erase(strangers_.begin());
      strangers_.push_back({std::move(*accepted), now() + kHelloTime});
    }
  }

  // Gives the stranger's connection its seat, or closes it.
  void seat(Stranger& stranger) {
    Socket socket = std::move(stranger.connection.socket);
    const std::string& address = stranger.connection.address;
    const auto hello = decode_hello(stranger.bytes);
    if (!hello.ok()) return log_refused(address, hello.refusal().message);
    const Answer answer = judge(hello.value());
    send_all(socket, encode(answer), hello_deadline());  // if this fails, the connection ends, which is noticed later
    if (answer.kind == Answer::Kind::kRefused) log_refused(address, answer.text);
    if (answer.kind != Answer::Kind::kSeated) return;
    Seat& seat = seats_[static_cast<size_t>(hello.value().rank)];
    if (hello.value().channel == Channel::kData) {
      seat = Seat{std::move(socket), {}, hello.value().nonce, address};
    } else {
      seat.lifeline = std::move(socket);
    }
  }

  Answer judge(const Hello& hello) const {
    const std::string rank = "rank " + std::to_string(hello.rank);
    const auto refused = [](const std::string& why) { return Answer{Answer::Kind::kRefused, 0, why}; };
    if (hello.group != options_.group) {
      return refused("expected group '" + options_.group + "', found '" + hello.group + "'");
    }
    if (hello.world != options_.world) {
      return refused("expected a group of " + std::to_string(options_.world) + ", found " +
                     std::to_string(hello.world));
    }
    if (hello.rank == 0) return refused("rank 0 is already here");
    const Seat& seat = seats_[static_cast<size_t>(hello.rank)];
    const auto not_now = [](const std::string& why) { return Answer{Answer::Kind::kTryAgain, 0, why}; };
    if (hello.channel == Channel::kData) {
      return seat.data.is_open() ? not_now(rank + " is already here, from " + seat.address) : Answer{};
    }
    const bool belongs = seat.data.is_open() && seat.nonce == hello.nonce && !seat.lifeline.is_open();
    return belongs ? Answer{} : not_now(rank + " has no first connection to which this one belongs");
  }

  static void log_refused(const std::string& address, const std::string& why) {
    log_warn("rendezvous_refused", {{"from", address}, {"cause", why}});
  }

  Party start() {
    Party party;
    party.token = token_;
    for (Seat& seat : seats_) {
      if (seat.data.is_open()) {
        send_all(seat.data, encode(Answer{Answer::Kind::kStart, token_, {}}), hello_deadline());
      }
      party.data.push_back(std::move(seat.data));
      party.lifelines.push_back(std::move(seat.lifeline));
    }
    return party;
  }

  Instant now() const { return clock_.now(); }
  Deadline hello_deadline() const { return {clock_, now() + kHelloTime}; }

  const TcpGroupOptions& options_;
  const Clock& clock_;
  std::vector<Seat> seats_;  // by rank; the seat of rank 0 stays empty
  std::vector<Stranger> strangers_;
  uint64_t token_;
};

// The side of the other ranks.
class Visitor {
 public:
  Visitor(const TcpGroupOptions& options, const Clock& clock) : options_(options), clock_(clock) {}

  Party join(Instant until) {
    Party party;
    while (!try_join(party, {clock_, until})) {
      if (now() >= until) {
        throw Error("rank " + std::to_string(options_.rank) + " did not meet its group at " + place_of(options_) +
                    " within " + std::to_string(options_.meet_timeout_ms) + " ms: " + cause_);
      }
      poll(nullptr, 0, static_cast<int>(kRetry.count()));
    }
    return party;
  }

 private:
  bool try_join(Party& party, const Deadline& until) {
    const Id128 nonce = Id128::random();
    const Deadline soon{clock_, std::min(until.at, now() + kHelloTime)};
    Socket data = introduce(Channel::kData, nonce, soon);
    if (!data.is_open()) return false;
    Socket lifeline = introduce(Channel::kLifeline, nonce, soon);
    if (!lifeline.is_open()) return false;
    const auto answer = hear(data, until, "not all ranks came");
    if (!answer) return false;
    party.token = answer->token;
    party.data.clear();
    party.lifelines.clear();
    party.data.push_back(std::move(data));
    party.lifelines.push_back(std::move(lifeline));
    return true;
  }

  // A connection that rank 0 has accepted, or a socket that is not open and the reason in cause_.
  Socket introduce(Channel channel, const Id128& nonce, const Deadline& until) {
    Socket socket = connect_to(options_.host, options_.port, until, cause_);
    if (!socket.is_open()) return {};
    const Hello hello{channel, options_.world, options_.rank, nonce, options_.group};
    if (send_all(socket, encode(hello), until) != Io::kDone) {
      cause_ = "rank 0 closed the connection";
      return {};
    }
    const auto answer = hear(socket, until, "rank 0 does not answer");
    return answer ? std::move(socket) : Socket();
  }

  std::optional<Answer> hear(const Socket& socket, const Deadline& until, const char* if_late) {
    AnswerBytes bytes;
    if (const Io io = receive_all(socket, bytes, until); io != Io::kDone) {
      cause_ = io == Io::kLate ? if_late : "rank 0 closed the connection";
      return std::nullopt;
    }
    const auto answer = decode_answer(bytes);
    if (!answer.ok() || answer.value().kind == Answer::Kind::kRefused) {
      throw Error("rank 0 at " + place_of(options_) + " refuses rank " + std::to_string(options_.rank) + ": " +
                  (answer.ok() ? answer.value().text : answer.refusal().message));
    }
    if (answer.value().kind != Answer::Kind::kTryAgain) return answer.value();
    cause_ = answer.value().text;
    return std::nullopt;
  }

  Instant now() const { return clock_.now(); }

  const TcpGroupOptions& options_;
  const Clock& clock_;
  std::string cause_;
};

}  // namespace

Party meet(const TcpGroupOptions& options, const Clock& clock) {
  if (options.group.size() > kTextBytes) {
    throw Error("the name of a group has at most " + std::to_string(kTextBytes) + " bytes: '" + options.group + "'");
  }
  const Instant until = clock.now() + milliseconds(options.meet_timeout_ms);
  if (options.rank > 0) return Visitor(options, clock).join(until);
  if (options.world > 1) return Host(options, clock).gather(until);
  Party alone;
  alone.data.resize(1);
  alone.lifelines.resize(1);
  return alone;
}

}  // namespace optserve::comm::tcp
