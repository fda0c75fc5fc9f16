// An encrypted and authenticated stream between two processes that have one secret key in common. Both draw a new pair
// of keys for each connection (X25519) and exchange offers; the keys of the stream follow from the secret key, the new
// pairs and both offers. So only who has the secret key can take part, nothing of an earlier connection is of use
// in a later one, and a secret key that is stolen later does not open what was recorded before.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "base/error.h"
#include "keys/key_pair.h"

namespace optserve::keys {

inline constexpr size_t kSealBytes = 16;  // what sealing adds

// What each side sends first: its new public key, and a proof that it has the secret key.
using Offer = std::array<uint8_t, 64>;

// A key that is wiped when it is destroyed.
class StreamKey {
 public:
  StreamKey() = default;
  StreamKey(const StreamKey&) = default;
  StreamKey& operator=(const StreamKey&) = default;
  ~StreamKey();
  std::array<uint8_t, 32> bytes{};
};

// One direction of a stream (ChaCha20-Poly1305). Pieces are numbered, so they can be opened only once, in the order in
// which they were sealed, and with the sizes that they had.
class Sealer {
 public:
  explicit Sealer(const StreamKey& key) : key_(key) {}
  // sealed.size() == plain.size() + kSealBytes. They do not overlap.
  void seal(std::span<const uint8_t> plain, std::span<uint8_t> sealed);

 private:
  StreamKey key_;
  uint64_t number_ = 0;
};
class Opener {
 public:
  explicit Opener(const StreamKey& key) : key_(key) {}
  // The same sizes. False if this is not the piece that was sealed next; then `plain` is zero, and the stream is over.
  [[nodiscard]] bool open(std::span<const uint8_t> sealed, std::span<uint8_t> plain);

 private:
  StreamKey key_;
  uint64_t number_ = 0;
};
struct SealedStream {
  Sealer sealer;
  Opener opener;
};

// The side that connects.
class Caller {
 public:
  // `key` is copied. Throws Error if the system gives no random numbers.
  explicit Caller(const SecretKey& key);
  const Offer& offer() const { return offer_; }
  // nullopt if who answered does not have the key, or the answer is one to another offer.
  std::optional<SealedStream> finish(const Offer& answer) const;

 private:
  SecretKey key_;
  Offer offer_{};
  StreamKey own_;  // its public key is in the offer, so it is made after it
};

// The side to which others connect.
struct Answered {
  Offer answer{};
  SealedStream stream;
};
// nullopt if the caller does not have the key, which is found out without costly computation. An offer may be a
// repetition of an earlier one: only who can send something that the stream opens has proved to be there.
std::optional<Answered> answer_offer(const SecretKey& key, const Offer& offer);

}  // namespace optserve::keys
