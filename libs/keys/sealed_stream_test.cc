// Who has the same key understands each other, and nothing else than what was sealed is ever opened.
#include "keys/sealed_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace optserve::keys {
namespace sealed_stream_test {

using Bytes = std::vector<uint8_t>;

struct Pair {
  SealedStream caller, answerer;
};

Pair connect(const SecretKey& key) {
  const Caller caller(key);
  const auto answered = answer_offer(key, caller.offer());
  EXPECT_TRUE(answered.has_value());
  const auto stream = caller.finish(answered->answer);
  EXPECT_TRUE(stream.has_value());
  return {*stream, answered->stream};
}

Bytes sealed(Sealer& sealer, const std::string& text) {
  Bytes bytes(text.size() + kSealBytes);
  sealer.seal({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, bytes);
  return bytes;
}

// The text of a piece, or "forged".
std::string opened(Opener& opener, const Bytes& piece) {
  std::string text(piece.size() - kSealBytes, '?');
  const bool ok = opener.open(piece, {reinterpret_cast<uint8_t*>(text.data()), text.size()});
  EXPECT_TRUE(ok || std::ranges::count(text, '\0') == static_cast<ptrdiff_t>(text.size())) << text;
  return ok ? text : "forged";
}

TEST(SealedStream, BothSidesUnderstandEachOther) {
  Pair pair = connect(new_secret_key());
  for (const std::string text : {"one", "two", "", "three"}) {
    EXPECT_EQ(opened(pair.answerer.opener, sealed(pair.caller.sealer, text)), text);
    EXPECT_EQ(opened(pair.caller.opener, sealed(pair.answerer.sealer, "to " + text)), "to " + text);
  }
}

TEST(SealedStream, AnotherKeyIsNoticedByBothSides) {
  const SecretKey key = new_secret_key(), other = new_secret_key();
  const Caller caller(key);
  EXPECT_FALSE(answer_offer(other, caller.offer()).has_value());
  const Caller impostor(other);
  EXPECT_FALSE(caller.finish(answer_offer(other, impostor.offer())->answer).has_value());
}

TEST(SealedStream, EveryFlippedBitOfTheOffersEndsTheExchange) {
  const SecretKey key = new_secret_key();
  const Caller caller(key);
  const Offer answer = answer_offer(key, caller.offer())->answer;
  for (size_t bit = 0; bit < 8 * answer.size(); ++bit) {
    Offer call = caller.offer(), changed = answer;
    call[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    changed[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    EXPECT_FALSE(answer_offer(key, call).has_value()) << bit;
    EXPECT_FALSE(caller.finish(changed).has_value()) << bit;
  }
}

TEST(SealedStream, AnAnswerBelongsToOneOffer) {
  const SecretKey key = new_secret_key();
  const Caller caller(key), earlier(key);
  EXPECT_FALSE(caller.finish(answer_offer(key, earlier.offer())->answer).has_value());
  EXPECT_FALSE(caller.finish(caller.offer()).has_value()) << "its own offer, sent back";
}

// Whoever recorded a connection can repeat its offer, but then nothing that it recorded is opened.
TEST(SealedStream, ARecordedConnectionIsOfNoUse) {
  const SecretKey key = new_secret_key();
  const Caller caller(key);
  auto first = answer_offer(key, caller.offer());
  auto stream = caller.finish(first->answer);
  const Bytes piece = sealed(stream->sealer, "I am rank 1");
  EXPECT_EQ(opened(first->stream.opener, piece), "I am rank 1");
  auto again = answer_offer(key, caller.offer());
  ASSERT_TRUE(again.has_value());
  EXPECT_NE(again->answer, first->answer);
  EXPECT_EQ(opened(again->stream.opener, piece), "forged");
}

TEST(SealedStream, PiecesAreOpenedOnceInTheirOrderAndAsTheyWere) {
  const SecretKey key = new_secret_key();
  {
    Pair pair = connect(key);
    const Bytes piece = sealed(pair.caller.sealer, "once");
    EXPECT_EQ(opened(pair.answerer.opener, piece), "once");
    EXPECT_EQ(opened(pair.answerer.opener, piece), "forged");
  }
  {
    Pair pair = connect(key);
    sealed(pair.caller.sealer, "first");
    EXPECT_EQ(opened(pair.answerer.opener, sealed(pair.caller.sealer, "second")), "forged") << "one was left out";
  }
  {
    Pair pair = connect(key);
    EXPECT_EQ(opened(pair.caller.opener, sealed(pair.caller.sealer, "back")), "forged") << "its own, sent back";
  }
  {
    Pair pair = connect(key);
    Bytes piece = sealed(pair.caller.sealer, "a long text");
    piece.erase(piece.begin());
    EXPECT_EQ(opened(pair.answerer.opener, piece), "forged") << "a shorter one";
  }
}

TEST(SealedStream, EveryFlippedBitOfAPieceIsNoticed) {
  const SecretKey key = new_secret_key();
  const Caller caller(key);
  const auto answered = answer_offer(key, caller.offer());
  auto stream = caller.finish(answered->answer);
  const Bytes piece = sealed(stream->sealer, "text");
  for (size_t bit = 0; bit < 8 * piece.size(); ++bit) {
    Bytes changed = piece;
    changed[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    Opener opener = answered->stream.opener;
    EXPECT_EQ(opened(opener, changed), "forged") << bit;
  }
}

}  // namespace sealed_stream_test
}  // namespace optserve::keys
