#include "keys/sealed_stream.h"

#include <sodium.h>

#include <algorithm>
#include <cstring>

namespace optserve::keys {
namespace {

constexpr size_t kHalf = 32;  // of an offer: the public key, and after it the proof
static_assert(std::tuple_size_v<Offer> == 2 * kHalf && crypto_scalarmult_BYTES == kHalf);
static_assert(crypto_kdf_KEYBYTES == kKeyBytes && crypto_kdf_CONTEXTBYTES == 8);
static_assert(crypto_aead_chacha20poly1305_ietf_KEYBYTES == kHalf);
static_assert(crypto_aead_chacha20poly1305_ietf_ABYTES == kSealBytes);

// Each key that is derived has one purpose; a change of what they seal needs another text.
constexpr const char* kOfStream = "optwire1";
enum Purpose : uint64_t { kProveCall = 1, kSession, kProveAnswer, kFromCaller, kFromAnswerer };

StreamKey derive(std::span<const uint8_t, kKeyBytes> from, Purpose purpose) {
  StreamKey key;
  crypto_kdf_derive_from_key(key.bytes.data(), key.bytes.size(), purpose, kOfStream, from.data());
  return key;
}

std::span<uint8_t> proof_of(Offer& offer) { return std::span(offer).subspan(kHalf); }

// The keyed hash of `parts`, all of which have fixed sizes.
StreamKey hash(const StreamKey& key, std::initializer_list<std::span<const uint8_t>> parts) {
  crypto_generichash_state state;
  crypto_generichash_init(&state, key.bytes.data(), key.bytes.size(), kHalf);
  for (const auto part : parts) crypto_generichash_update(&state, part.data(), part.size());
  StreamKey result;
  crypto_generichash_final(&state, result.bytes.data(), result.bytes.size());
  sodium_memzero(&state, sizeof state);
  return result;
}

// Draws a pair of keys, and puts the public one into `offer`.
StreamKey draw_pair(Offer& offer) {
  if (sodium_init() < 0) throw Error("libsodium: this system gives no random numbers");
  StreamKey own;
  randombytes_buf(own.bytes.data(), own.bytes.size());
  crypto_scalarmult_base(offer.data(), own.bytes.data());
  return own;
}

void prove(Offer& offer, const StreamKey& proof) { std::ranges::copy(proof.bytes, proof_of(offer).begin()); }

bool proves(const Offer& offer, const StreamKey& proof) {
  return sodium_memcmp(offer.data() + kHalf, proof.bytes.data(), kHalf) == 0;
}

StreamKey proof_of_call(const SecretKey& key, const Offer& offer) {
  return hash(derive(key.bytes(), kProveCall), {std::span(offer).first(kHalf)});
}

// What both sides know once each has the other's public key. nullopt for a public key that no one draws.
std::optional<StreamKey> session_key(const SecretKey& key, const StreamKey& own, const uint8_t* of_peer,
                                     const Offer& call, const Offer& answer) {
  StreamKey common;
  if (crypto_scalarmult(common.bytes.data(), own.bytes.data(), of_peer) != 0) return std::nullopt;
  return hash(derive(key.bytes(), kSession), {call, std::span(answer).first(kHalf), common.bytes});
}

// The nonce of the piece with this number; each key seals in one direction of one connection only.
std::array<uint8_t, crypto_aead_chacha20poly1305_ietf_NPUBBYTES> nonce_of(uint64_t number) {
  std::array<uint8_t, crypto_aead_chacha20poly1305_ietf_NPUBBYTES> nonce{};
  for (size_t i = 0; i < sizeof number; ++i) nonce[i] = static_cast<uint8_t>(number >> (8 * i));
  return nonce;
}

}  // namespace

StreamKey::~StreamKey() { sodium_memzero(bytes.data(), bytes.size()); }

void Sealer::seal(std::span<const uint8_t> plain, std::span<uint8_t> sealed) {
  check(sealed.size() == plain.size() + kSealBytes, "bytes of a sealed piece");
  const auto nonce = nonce_of(number_++);
  crypto_aead_chacha20poly1305_ietf_encrypt(sealed.data(), nullptr, plain.data(), plain.size(), nullptr, 0, nullptr,
                                            nonce.data(), key_.bytes.data());
}

bool Opener::open(std::span<const uint8_t> sealed, std::span<uint8_t> plain) {
  check(sealed.size() == plain.size() + kSealBytes, "bytes of a sealed piece");
  const auto nonce = nonce_of(number_++);
  return crypto_aead_chacha20poly1305_ietf_decrypt(plain.data(), nullptr, nullptr, sealed.data(), sealed.size(),
                                                   nullptr, 0, nonce.data(), key_.bytes.data()) == 0;
}

Caller::Caller(const SecretKey& key) : key_(key), own_(draw_pair(offer_)) {
  prove(offer_, proof_of_call(key_, offer_));
}

std::optional<SealedStream> Caller::finish(const Offer& answer) const {
  const auto session = session_key(key_, own_, answer.data(), offer_, answer);
  if (!session || !proves(answer, derive(session->bytes, kProveAnswer))) return std::nullopt;
  return SealedStream{Sealer(derive(session->bytes, kFromCaller)), Opener(derive(session->bytes, kFromAnswerer))};
}

std::optional<Answered> answer_offer(const SecretKey& key, const Offer& offer) {
  if (!proves(offer, proof_of_call(key, offer))) return std::nullopt;
  Offer answer{};
  const StreamKey own = draw_pair(answer);
  const auto session = session_key(key, own, offer.data(), offer, answer);
  if (!session) return std::nullopt;
  prove(answer, derive(session->bytes, kProveAnswer));
  return Answered{answer, {Sealer(derive(session->bytes, kFromAnswerer)), Opener(derive(session->bytes, kFromCaller))}};
}

}  // namespace optserve::keys
