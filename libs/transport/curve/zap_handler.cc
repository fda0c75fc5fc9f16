#include "transport/curve/zap_handler.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "base/log.h"

namespace optserve::transport {
namespace {

constexpr int kAnswersPerTurn = 256;
constexpr seconds kBetweenRefusalLines{10};
constexpr size_t kFramesMax = 16;
// The frames of a question, after the route and an empty frame.
enum Frame : size_t {
  kRoute,
  kEmpty,
  kVersion,
  kRequest,
  kDomain,
  kAddress,
  kRoutingId,
  kMechanism,
  kCredentials,
  kAll
};

}  // namespace

std::string zap_domain(keys::Door door) { return door == keys::Door::kClients ? "clients" : "services"; }

ZapHandler::ZapHandler(zmq::context_t& context, keys::ServerKeys& keys, metrics::Registry& registry)
    : keys_(keys), socket_(context, zmq::socket_type::router) {
  const auto counter = [&](const char* result) {
    return registry.counter("optserve_handshakes_total", "Handshakes of peers with keys", {{"result", result}});
  };
  let_in_ = counter("let_in");
  refused_ = counter("refused");
  socket_.set(zmq::sockopt::linger, 0);
  socket_.bind("inproc://zeromq.zap.01");
}

bool ZapHandler::receive_question(std::vector<std::string>& frames) {
  frames.clear();
  zmq::message_t part;
  do {
    if (!socket_.recv(part, zmq::recv_flags::dontwait)) return false;
    if (frames.size() < kFramesMax) frames.push_back(part.to_string());
  } while (part.more());
  return true;
}

const keys::AllowedKey* ZapHandler::look_up(const std::vector<std::string>& frames) {
  if (frames.size() != kAll || frames[kMechanism] != "CURVE" || frames[kCredentials].size() != keys::kKeyBytes) {
    return nullptr;
  }
  keys::PublicKey key;
  std::ranges::copy(frames[kCredentials], key.bytes.begin());
  const keys::AllowedKey* allowed = keys_.allowed().find(key);
  if (allowed == nullptr) return nullptr;
  for (const keys::Door door : {keys::Door::kClients, keys::Door::kServices}) {
    if (frames[kDomain] == zap_domain(door) && allowed->may_enter(door)) return allowed;
  }
  return nullptr;
}

void ZapHandler::answer_waiting(Instant now) {
  std::vector<std::string> frames;
  for (int i = 0; i < kAnswersPerTurn && receive_question(frames); ++i) {
    if (frames.size() <= kRequest) continue;
    const keys::AllowedKey* key = look_up(frames);
    (key != nullptr ? let_in_ : refused_).add();
    if (key == nullptr) log_refusal(frames, now);
    const std::array<std::string, 8> answer{frames[kRoute],
                                            "",
                                            "1.0",
                                            frames[kRequest],
                                            key != nullptr ? "200" : "400",
                                            key != nullptr ? "OK" : "this key is not allowed here",
                                            key != nullptr ? key->key.text() : std::string(),
                                            ""};
    for (size_t part = 0; part < answer.size(); ++part) {
      const bool is_last = part + 1 == answer.size();
      socket_.send(zmq::buffer(answer[part]), is_last ? zmq::send_flags::none : zmq::send_flags::sndmore);
    }
  }
}

// Logs at most one line every few seconds, since a refused peer may come again as often as it likes.
void ZapHandler::log_refusal(const std::vector<std::string>& frames, Instant now) {
  if (now < next_log_) {
    ++unlogged_;
    return;
  }
  next_log_ = now + kBetweenRefusalLines;
  std::string key = "none";
  if (frames.size() == kAll && frames[kCredentials].size() == keys::kKeyBytes) {
    keys::PublicKey shown;
    std::ranges::copy(frames[kCredentials], shown.bytes.begin());
    key = shown.text();
  }
  log_warn("key_refused", {{"port", frames.size() > kDomain ? frames[kDomain] : ""},
                           {"address", frames.size() > kAddress ? frames[kAddress] : ""},
                           {"public_key", key},
                           {"since_last_line", std::exchange(unlogged_, 0)}});
}

}  // namespace optserve::transport
