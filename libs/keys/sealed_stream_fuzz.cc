// Offers and sealed pieces of somebody who does not have the key: none is accepted, and nothing else happens.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "keys/sealed_stream.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::keys;
  static const SecretKey key = new_secret_key();
  static const Caller caller(key);
  static const Answered answered = *answer_offer(key, caller.offer());
  Offer offer{};
  std::copy_n(data, std::min(size, offer.size()), offer.begin());
  check(!answer_offer(key, offer), "an offer of somebody without the key");
  check(!caller.finish(offer), "an answer of somebody without the key");
  if (size >= kSealBytes) {
    Opener opener = answered.stream.opener;
    std::vector<uint8_t> plain(size - kSealBytes, 1);
    check(!opener.open({data, size}, plain), "a piece of somebody without the key");
    check(std::ranges::all_of(plain, [](uint8_t byte) { return byte == 0; }), "bytes of a forged piece");
  }
  return 0;
}
