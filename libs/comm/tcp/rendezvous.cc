#include "comm/tcp/rendezvous.h"

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "base/log.h"
#include "comm/tcp/frames.h"

namespace optserve::comm::tcp {
namespace {

constexpr size_t kStrangersMax = 128;  // connections that have not yet said which rank they are
constexpr int kAcceptsAtOnce = 32;     // of them, before those that are here are heard
constexpr milliseconds kHelloTime{5'000};
constexpr milliseconds kBindTime{10'000};
constexpr milliseconds kReportInterval{10'000};
constexpr milliseconds kRetry{100};

std::string place_of(const TcpGroupOptions& options) { return options.host + ":" + std::to_string(options.port); }

// A connection that has not yet said which rank it is: with a key of the group it sends a Call and, sealed, its Hello.
struct Stranger {
  Link link;
  std::string address;
  Instant until;
  std::array<uint8_t, kHelloBytes + keys::kSealBytes> bytes{};  // of the record that is arriving
  size_t received = 0;

  std::span<uint8_t> record() { return std::span(bytes).first(link.wire_size(kHelloBytes)); }
};

// The side of rank 0.
class Host {
 public:
  Host(const TcpGroupOptions& options, const Clock& clock)
      : options_(options), clock_(clock), seats_(static_cast<size_t>(options.world)), token_(random_token()) {}

  Party gather(Instant until) {
    Socket listener = open_door(std::min(until, now() + kBindTime));
    log_info("rendezvous_open", {{"address", place_of(options_)},
                                 {"world", options_.world},
                                 {"encrypted", options_.key != nullptr ? "yes" : "no"}});
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
    Link data, lifeline;
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
      if (seat.data.is_open()) polled.push_back({seat.data.socket().fd(), POLLIN, 0});
    }
    for (const Stranger& stranger : strangers_) {
      polled.push_back({stranger.link.socket().fd(), POLLIN, 0});
      until = std::min(until, stranger.until);
    }
    const auto left = std::chrono::ceil<milliseconds>(until - now()).count();
    poll(polled.data(), polled.size(), static_cast<int>(std::clamp<int64_t>(left, 0, 1'000)));
  }

  // A rank that waits sends nothing, so anything to read is the end of its connection.
  void free_left_seats() {
    for (Seat& seat : seats_) {
      uint8_t byte;
      if (seat.data.is_open() && receive_some(seat.data.socket(), std::span(&byte, 1)) != 0) seat = Seat{};
    }
  }

  void hear_strangers() {
    for (Stranger& stranger : strangers_) {
      const auto record = stranger.record();
      const auto received = receive_some(stranger.link.socket(), record.subspan(stranger.received));
      if (received > 0) stranger.received += static_cast<size_t>(received);
      if (stranger.received == record.size()) {
        hear(stranger);
      } else if (received < 0 || now() >= stranger.until) {
        log_refused(stranger.address, "it did not say which rank it is");
        stranger.link = {};
      }
    }
    std::erase_if(strangers_, [](const Stranger& one) { return !one.link.is_open(); });
  }

  void accept_strangers(const Socket& listener) {
    for (int i = 0; i < kAcceptsAtOnce; ++i) {
      auto accepted = accept_waiting(listener);
      if (!accepted) return;
      if (strangers_.size() == kStrangersMax) make_room();
      strangers_.push_back({Link(std::move(accepted->socket)), std::move(accepted->address), now() + kHelloTime});
    }
  }

  // Drops the oldest connection of the host that has the most of them, so that a flood drives out itself.
  void make_room() {
    const auto host_of = [](const Stranger& stranger) {
      return stranger.address.substr(0, stranger.address.rfind(':'));
    };
    std::map<std::string, int> numbers;
    for (const Stranger& stranger : strangers_) ++numbers[host_of(stranger)];
    const auto by_number = [](const auto& one, const auto& other) { return one.second < other.second; };
    const std::string& crowd = std::ranges::max_element(numbers, by_number)->first;
    strangers_.erase(
        std::ranges::find_if(strangers_, [&](const Stranger& stranger) { return host_of(stranger) == crowd; }));
  }

  // A record of the stranger has fully arrived.
  void hear(Stranger& stranger) {
    HelloBytes bytes;
    const bool opened = stranger.link.open(stranger.record(), bytes);
    stranger.received = 0;
    if (!opened) return refuse(stranger, "its second record was not sealed by who sent the first");
    if (options_.key && !stranger.link.is_sealed()) return answer_call(stranger, bytes);
    if (is_call(bytes)) return refuse(stranger, "it has a key of the group, but rank 0 has none");
    const auto hello = decode_hello(bytes);
    if (hello.ok()) return seat(stranger, hello.value());
    log_refused(stranger.address, hello.refusal().message);
    stranger.link = {};
  }

  void answer_call(Stranger& stranger, const HelloBytes& bytes) {
    const auto call = decode_call(bytes);
    if (!call.ok()) return refuse(stranger, call.refusal().message);
    const auto answered = keys::answer_offer(*options_.key, call.value().offer);
    if (!answered) return refuse(stranger, "its key is not that of the group");
    stranger.link.send(encode(CallAnswer{answered->answer}), hello_deadline());
    stranger.link.seal(answered->stream);
  }

  // Says why, for ranks that were started with other options, and closes.
  void refuse(Stranger& stranger, const std::string& why) {
    log_refused(stranger.address, why);
    stranger.link.send(encode(Answer{Answer::Kind::kRefused, 0, why}), hello_deadline());
    stranger.link = {};
  }

  // Gives the stranger's connection its seat, or closes it.
  void seat(Stranger& stranger, const Hello& hello) {
    Link link = std::move(stranger.link);
    const Answer answer = judge(hello);
    link.send(encode(answer), hello_deadline());  // if this fails, the connection ends, which is noticed later
    if (answer.kind == Answer::Kind::kRefused) log_refused(stranger.address, answer.text);
    if (answer.kind != Answer::Kind::kSeated) return;
    Seat& seat = seats_[static_cast<size_t>(hello.rank)];
    if (hello.channel == Channel::kData) {
      seat = Seat{std::move(link), {}, hello.nonce, stranger.address};
    } else {
      seat.lifeline = std::move(link);
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
      if (seat.data.is_open()) seat.data.send(encode(Answer{Answer::Kind::kStart, token_, {}}), hello_deadline());
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
    Link data = introduce(Channel::kData, nonce, soon);
    if (!data.is_open()) return false;
    Link lifeline = introduce(Channel::kLifeline, nonce, soon);
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

  // A connection that rank 0 has accepted, or a link that is not open and the reason in cause_.
  Link introduce(Channel channel, const Id128& nonce, const Deadline& until) {
    Link link(connect_to(options_.host, options_.port, until, cause_));
    if (!link.is_open() || (options_.key && !exchange_offers(link, until))) return {};
    const Hello hello{channel, options_.world, options_.rank, nonce, options_.group};
    if (!went_well(link.send(encode(hello), until))) return {};
    const auto answer = hear(link, until, "rank 0 does not answer");
    return answer ? std::move(link) : Link();
  }

  // False if the connection ended; cause_ says why.
  bool exchange_offers(Link& link, const Deadline& until) {
    const keys::Caller caller(*options_.key);
    AnswerBytes bytes;
    if (!went_well(link.send(encode(Call{caller.offer()}), until))) return false;
    if (!went_well(link.receive(bytes, until))) return false;
    const auto answer = decode_call_answer(bytes);
    // What refuses in clear text may be anybody, so its words are not repeated.
    if (!answer.ok()) throw_refused("it has no key of the group, or another one than this rank");
    auto stream = caller.finish(answer.value().offer);
    if (!stream) throw_refused("whoever answers there does not have the key of the group");
    link.seal(*stream);
    return true;
  }

  bool went_well(Io io, const char* if_late = "rank 0 does not answer") {
    if (io == Io::kLate) cause_ = if_late;
    if (io == Io::kClosed) cause_ = "rank 0 closed the connection";
    if (io == Io::kForged) cause_ = "somebody changed what rank 0 sent";
    return io == Io::kDone;
  }

  [[noreturn]] void throw_refused(const std::string& why) const {
    throw Error("rank 0 at " + place_of(options_) + " refuses rank " + std::to_string(options_.rank) + ": " + why);
  }

  std::optional<Answer> hear(Link& link, const Deadline& until, const char* if_late) {
    AnswerBytes bytes;
    if (!went_well(link.receive(bytes, until), if_late)) return std::nullopt;
    const auto answer = decode_answer(bytes);
    if (!answer.ok()) throw_refused(answer.refusal().message);
    if (answer.value().kind == Answer::Kind::kRefused) throw_refused(answer.value().text);
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
