#include "tokenizer/tokenizer_service.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/hex.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "checkpoint/manifest/model_identity.h"
#include "protocol/codec.h"

namespace optserve::tokenizer {
namespace tokenizer_service_test {

namespace fs = std::filesystem;
using checkpoint::FileEntry;
using checkpoint::Manifest;

std::string read_file(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

FileEntry entry(const std::string& name, const std::string& bytes) {
  return {name, bytes.size(), to_hex(sha256(bytes))};
}

// A folder with the demo model's tokenizer and a manifest; the shard is named and missing, as tokenizers do not care.
class CheckpointFolder {
 public:
  CheckpointFolder() : path_(fs::path(::testing::TempDir()) / ("tokenizer_test_" + std::to_string(getpid()))) {
    fs::create_directories(path_);
    manifest_.config = *model_spec::find_published("opt-125m");
    manifest_.vocab_file = checkpoint::kVocabName;
    manifest_.merges_file = checkpoint::kMergesName;
    manifest_.files = {{checkpoint::shard_file_name(0, 1), 1, std::string(64, '0')}};
    for (const std::string_view name : {checkpoint::kVocabName, checkpoint::kMergesName}) {
      const std::string bytes = read_file(fs::path(OPTSERVE_DEMO_MODEL) / name);
      write(std::string(name), bytes);
      manifest_.files.push_back(entry(std::string(name), bytes));
    }
    write_manifest();
  }
  ~CheckpointFolder() { fs::remove_all(path_); }
  CheckpointFolder(const CheckpointFolder&) = delete;
  CheckpointFolder& operator=(const CheckpointFolder&) = delete;

  std::string path() const { return path_.string(); }
  Manifest& manifest() { return manifest_; }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
  }
  void write_manifest() const { write(std::string(checkpoint::kManifestName), checkpoint::manifest_text(manifest_)); }

 private:
  fs::path path_;
  Manifest manifest_;
};

std::string refusal_of(const CheckpointFolder& folder) {
  const auto model = model_text::load_served_model("demo=" + folder.path());
  return model.ok() ? "" : model.refusal().message;
}

TEST(ServedModel, IdentifiesItselfByManifestAndVocabulary) {
  const CheckpointFolder folder;
  const auto named = model_text::load_served_model("demo=" + folder.path());
  ASSERT_TRUE(named.ok()) << named.refusal().message;
  const protocol::ModelInfo& info = named.value()->info;
  EXPECT_EQ(info.name, "demo");
  EXPECT_EQ(info.context, 2048);
  EXPECT_EQ(info.vocab, 50272);
  EXPECT_EQ(info.manifest_digest, to_hex(sha256(read_file(folder.path() + "/manifest.json"))));
  EXPECT_EQ(info.vocabulary_digest.size(), 64u);
  EXPECT_EQ(model_text::load_served_model(folder.path()).value()->info.name, "opt-125m");
}

TEST(ServedModel, VocabularyDigestChangesWithEitherFileAndOnlyWithThem) {
  CheckpointFolder folder;
  const std::string before = checkpoint::vocabulary_digest(folder.manifest());
  folder.manifest().files[0].sha256 = std::string(64, '1');
  EXPECT_EQ(checkpoint::vocabulary_digest(folder.manifest()), before);
  for (const size_t file : {1u, 2u}) {
    Manifest changed = folder.manifest();
    changed.files[file].sha256[0] = changed.files[file].sha256[0] == '0' ? '1' : '0';
    EXPECT_NE(checkpoint::vocabulary_digest(changed), before);
  }
}

TEST(ServedModel, ItsPromptsBeginWithTheIdThatItsManifestNames) {
  CheckpointFolder folder;
  folder.manifest().config.bos_id = 7;
  folder.write_manifest();
  std::vector<std::unique_ptr<model_text::ServedModel>> models;
  models.push_back(model_text::load_served_model("demo=" + folder.path()).value());
  TextServer texts(std::move(models));
  protocol::Encode question;
  question.items.push_back({1, "demo", "text"});
  EXPECT_EQ(texts.encode(question).at(0).items.at(0).ids.front(), 7);
}

TEST(ServedModel, RefusesChangedMissingAndAbsentTokenizerFiles) {
  const CheckpointFolder folder;
  const std::string merges = read_file(folder.path() + "/gpt2-merges.txt");
  std::string other = merges;
  std::swap(other[other.size() - 2], other[other.size() - 4]);
  folder.write("gpt2-merges.txt", other);
  EXPECT_NE(refusal_of(folder).find("gpt2-merges.txt has SHA-256"), std::string::npos) << refusal_of(folder);
  folder.write("gpt2-merges.txt", merges + "x y\n");
  EXPECT_NE(refusal_of(folder).find("bytes, the manifest says"), std::string::npos) << refusal_of(folder);
  fs::remove(folder.path() + "/gpt2-merges.txt");
  EXPECT_NE(refusal_of(folder).find("gpt2-merges.txt"), std::string::npos) << refusal_of(folder);
}

TEST(ServedModel, RefusesFoldersWithoutManifestTokenizerOrEnoughRows) {
  CheckpointFolder folder;
  folder.manifest().config.vocab = 1024;
  folder.manifest().config.vocab_real = 1024;
  folder.write_manifest();
  EXPECT_NE(refusal_of(folder).find("rows for 1024"), std::string::npos) << refusal_of(folder);
  folder.manifest().vocab_file.clear();
  folder.manifest().merges_file.clear();
  folder.manifest().files.resize(1);
  folder.write_manifest();
  EXPECT_NE(refusal_of(folder).find("without a tokenizer"), std::string::npos) << refusal_of(folder);
  fs::remove(folder.path() + "/manifest.json");
  EXPECT_NE(refusal_of(folder).find("no manifest.json"), std::string::npos) << refusal_of(folder);
}

// A conversation with the service: what is sent in, what comes out.
class TokenizerServiceTest : public ::testing::Test {
 protected:
  TokenizerServiceTest() : service_(make_texts(folder_), protocol::Register{}, {}, registry_, health_) {}

  static TextServer make_texts(const CheckpointFolder& folder) {
    std::vector<std::unique_ptr<model_text::ServedModel>> models;
    models.push_back(model_text::load_served_model("demo=" + folder.path()).value());
    return TextServer(std::move(models));
  }

  std::vector<protocol::Message> say(protocol::Message message) {
    service_.on_message({}, std::move(message), clock_.now(), out_);
    return taken();
  }
  std::vector<protocol::Message> tick(Duration later) {
    clock_.advance(later);
    service_.on_tick(clock_.now(), out_);
    return taken();
  }
  std::vector<protocol::Message> taken() {
    std::vector<protocol::Message> messages;
    for (auto& item : out_.take()) messages.push_back(std::move(item.message));
    return messages;
  }

  std::vector<protocol::EncodedItem> encode(std::vector<protocol::EncodeItem> items) {
    std::vector<protocol::EncodedItem> answers;
    for (const auto& message : say(protocol::Encode{std::move(items)})) {
      const auto& encoded = std::get<protocol::Encoded>(message);
      answers.insert(answers.end(), encoded.items.begin(), encoded.items.end());
    }
    return answers;
  }
  protocol::DecodedItem decode(protocol::DecodeItem item) {
    const auto messages = say(protocol::Decode{{std::move(item)}});
    return std::get<protocol::Decoded>(messages.at(0)).items.at(0);
  }

  CheckpointFolder folder_;
  metrics::Registry registry_;
  FakeClock clock_;
  metrics::Health health_{clock_};
  transport::Outbox out_;
  TokenizerService service_;
};

TEST_F(TokenizerServiceTest, RegistersItsModelsAndIsReadyOnceTheSchedulerAnswers) {
  tick(milliseconds(0));
  const auto sent = tick(milliseconds(500));
  ASSERT_FALSE(sent.empty());
  const auto& hello = std::get<protocol::Register>(sent.at(0));
  EXPECT_EQ(hello.kind, protocol::ServiceKind::kTokenizer);
  ASSERT_EQ(hello.models.size(), 1u);
  EXPECT_EQ(hello.models[0].name, "demo");
  EXPECT_FALSE(health_.ready);
  say(protocol::Registered{7});
  EXPECT_TRUE(health_.ready);
}

TEST_F(TokenizerServiceTest, EncodesAndDecodesBack) {
  const std::string text = "Once upon a time, \xf0\x9f\x98\x80 there was caf\xc3\xa9.";
  const auto encoded = encode({{11, "demo", text}, {12, "demo", ""}});
  ASSERT_EQ(encoded.size(), 2u);
  EXPECT_EQ(encoded[0].ticket, 11u);
  EXPECT_FALSE(encoded[0].error);
  EXPECT_EQ(encoded[0].count, encoded[0].ids.size());
  EXPECT_EQ(encoded[0].ids.front(), 2);
  EXPECT_EQ(encoded[1].ids, std::vector<TokenId>{2});
  EXPECT_EQ(encoded[1].count, 1u);

  std::string streamed;  // one id at a time, the state travelling with each question
  protocol::Bytes state;
  for (size_t i = 0; i < encoded[0].ids.size(); ++i) {
    const bool last = i + 1 == encoded[0].ids.size();
    const auto piece = decode({100 + i, "demo", state, {encoded[0].ids[i]}, {}, last});
    ASSERT_FALSE(piece.error) << piece.message;
    EXPECT_EQ(piece.ticket, 100 + i);
    EXPECT_TRUE(is_valid_utf8(piece.text));
    streamed += piece.text;
    state = piece.state;
  }
  EXPECT_EQ(streamed, text);
}

TEST_F(TokenizerServiceTest, StopStringsEndTheText) {
  const auto ids = encode({{1, "demo", "one two. three"}})[0].ids;
  const auto piece = decode({2, "demo", {}, ids, {"zz", ". th"}, false});
  ASSERT_FALSE(piece.error) << piece.message;
  EXPECT_EQ(piece.text, "one two");
  EXPECT_EQ(piece.stop, 1);
}

TEST_F(TokenizerServiceTest, SaysWhichIdCompletedTheStopString) {
  const auto ids = encode({{1, "demo", "one two. three four five"}})[0].ids;
  const std::vector<std::string> stop = {"zz", ". th"};
  std::vector<protocol::Bytes> states(1);  // before each id
  protocol::DecodedItem piece;
  for (size_t i = 0; i < ids.size() && piece.stop < 0; ++i) {
    piece = decode({2, "demo", states.back(), {ids[i]}, stop, false});
    states.push_back(piece.state);
  }
  const size_t expected = states.size() - 1;
  EXPECT_EQ(piece.stop, 1);
  EXPECT_EQ(piece.stop_ids, 1u);
  ASSERT_GT(expected, 2u);
  ASSERT_LT(expected, ids.size());
  for (size_t first = 0; first < expected; ++first) {
    for (const bool flush : {false, true}) {
      const std::vector<TokenId> rest(ids.begin() + static_cast<ptrdiff_t>(first), ids.end());
      const auto answer = decode({3, "demo", states[first], rest, stop, flush});
      EXPECT_EQ(answer.stop, 1);
      EXPECT_EQ(answer.stop_ids, expected - first);
    }
  }
  EXPECT_EQ(decode({4, "demo", {}, ids, {"zz"}, true}).stop_ids, 0u);
}

TEST_F(TokenizerServiceTest, TheStopStringIsPartOfTheTextWhenAskedFor) {
  const auto ids = encode({{1, "demo", "one two. three"}})[0].ids;
  const auto piece = decode({2, "demo", {}, ids, {"zz", ". th"}, false, true});
  ASSERT_FALSE(piece.error) << piece.message;
  EXPECT_EQ(piece.text, "one two. th");
  EXPECT_EQ(piece.stop, 1);
}

TEST_F(TokenizerServiceTest, BadWordsAreEncodedAtABeginAndAfterASpace) {
  const auto answer = encode({{1, "demo", "text", {"dog", " cat"}}})[0];
  ASSERT_FALSE(answer.error) << answer.message;
  std::vector<std::vector<TokenId>> expected;
  for (const char* text : {"dog", " dog", "cat", " cat"}) {
    const auto ids = encode({{2, "demo", text}})[0].ids;
    expected.emplace_back(ids.begin() + 1, ids.end());  // without the leading id
  }
  EXPECT_EQ(answer.bad_words, expected);
  EXPECT_TRUE(encode({{1, "demo", "", std::vector<std::string>(limits::kBadWordsMax + 1, "a")}})[0].error);
  EXPECT_TRUE(encode({{1, "demo", "", {std::string(limits::kStopStringBytesMax + 1, 'a')}}})[0].error);
}

TEST_F(TokenizerServiceTest, EachItemFailsAlone) {
  const auto answers =
      encode({{1, "other", "text"}, {2, "demo", "fine"}, {3, "demo", std::string(limits::kPromptBytesMax + 1, 'a')}});
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0].error, ErrorCode::kUnknownModel);
  EXPECT_NE(answers[0].message.find("'other' is not served by this tokenizer, which has demo"), std::string::npos);
  EXPECT_FALSE(answers[1].error);
  EXPECT_EQ(answers[2].error, ErrorCode::kBadRequest);
  EXPECT_EQ(decode({4, "demo", {}, {50272}, {}, false}).error, ErrorCode::kBadRequest);
  EXPECT_EQ(decode({5, "demo", {}, {-1}, {}, false}).error, ErrorCode::kBadRequest);
  EXPECT_EQ(decode({6, "demo", {}, {5}, {""}, false}).error, ErrorCode::kBadRequest);
  const protocol::Bytes impossible{std::vector<uint8_t>(4096, 'x')};
  EXPECT_TRUE(decode({7, "demo", impossible, {5}, {}, false}).error);
  EXPECT_FALSE(decode({8, "demo", {}, {5}, {}, false}).error);
}

TEST_F(TokenizerServiceTest, AModelNameCutInsideACharacterStaysValidText) {
  const std::string name(limits::kModelNameBytesMax - 1, 'm');
  const auto answers = encode({{1, name + "\xe2\x82\xac", "text"}});
  EXPECT_TRUE(is_valid_utf8(answers.at(0).message));
}

TEST_F(TokenizerServiceTest, LongTextsAreCountedButOnlyAContextOfIdsIsSent) {
  std::string text;
  while (text.size() < limits::kPromptBytesMax - 8) text += " q9!";
  const auto answer = encode({{1, "demo", text}}).at(0);
  EXPECT_EQ(answer.ids.size(), limits::kContextTokensMax);
  EXPECT_GT(answer.count, limits::kContextTokensMax);
}

TEST_F(TokenizerServiceTest, AnswersAreCutIntoMessagesThatFitAFrame) {
  std::string text;
  while (text.size() < limits::kPromptBytesMax / 2) text += " q9!";
  std::vector<protocol::EncodeItem> items;
  for (uint64_t ticket = 0; ticket < 100; ++ticket) items.push_back({ticket, "demo", text});
  const auto messages = say(protocol::Encode{std::move(items)});
  EXPECT_GT(messages.size(), 1u);
  uint64_t next = 0;
  for (const auto& message : messages) {
    EXPECT_LE(protocol::encode(message).size(), limits::kInternalMessageBytesMax);
    for (const auto& item : std::get<protocol::Encoded>(message).items) EXPECT_EQ(item.ticket, next++);
  }
  EXPECT_EQ(next, 100u);
}

TEST_F(TokenizerServiceTest, TextThatDoesNotFitOneAnswerIsRefused) {
  TokenId longest = 0;
  const auto model = model_text::load_served_model("demo=" + folder_.path()).value();
  for (TokenId id = 0; id < static_cast<TokenId>(model->bpe.size()); ++id) {
    if (model->bpe.token_bytes(id).size() > model->bpe.token_bytes(longest).size()) longest = id;
  }
  const size_t bytes = model->bpe.token_bytes(longest).size();
  const std::vector<TokenId> ids(limits::kMessageArrayMax, longest);
  const auto answer = decode({1, "demo", {}, ids, {}, true});
  EXPECT_EQ(answer.error.has_value(), bytes * ids.size() > limits::kMessageStringMax) << bytes;
}

TEST_F(TokenizerServiceTest, LeavesAtOnceWhenAskedToStop) {
  tick(milliseconds(0));
  tick(milliseconds(500));
  say(protocol::Registered{7});
  service_.begin_drain(clock_.now(), out_);
  const auto sent = taken();
  ASSERT_FALSE(sent.empty());
  EXPECT_TRUE(std::holds_alternative<protocol::Goodbye>(sent.back()));
  EXPECT_TRUE(service_.is_drained());
  EXPECT_FALSE(health_.ready);
}

// Two schedulers ask with equal tickets; each reads its own answer, and one is enough to be ready.
TEST(TwoSchedulers, EachIsAnsweredOnItsOwnConnection) {
  const CheckpointFolder folder;
  std::vector<std::unique_ptr<model_text::ServedModel>> models;
  models.push_back(model_text::load_served_model("demo=" + folder.path()).value());
  metrics::Registry registry;
  FakeClock clock;
  metrics::Health health(clock);
  transport::Outbox out;
  transport::SchedulerLinkOptions links;
  links.schedulers = 2;
  TokenizerService service(TextServer(std::move(models)), protocol::Register{}, links, registry, health);
  const auto pass = [&](Duration time) {
    clock.advance(time);
    service.on_tick(clock.now(), out);
  };
  const auto say = [&](transport::PortId from, protocol::Message message) {
    service.on_message({from, {}}, std::move(message), clock.now(), out);
  };
  pass(milliseconds(0));
  pass(milliseconds(500));
  EXPECT_EQ(out.take().size(), 2u);
  say(1, protocol::Registered{7});
  EXPECT_TRUE(health.ready);
  say(0, protocol::Registered{3});
  say(0, protocol::Encode{{{11, "demo", "first"}}});
  say(1, protocol::Encode{{{11, "demo", "another one"}}});
  const auto answers = out.take();
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0].to.port, 0);
  EXPECT_EQ(answers[1].to.port, 1);
  EXPECT_NE(std::get<protocol::Encoded>(answers[0].message).items[0].ids,
            std::get<protocol::Encoded>(answers[1].message).items[0].ids);
  for (int i = 0; i < 60; ++i) {  // scheduler 0 falls silent
    say(1, protocol::Pong{1, 7});
    pass(milliseconds(100));
  }
  EXPECT_TRUE(health.ready);
  out.take();
  say(1, protocol::Encode{{{12, "demo", "first"}}});
  EXPECT_EQ(out.take().at(0).to.port, 1);
  for (int i = 0; i < 60; ++i) pass(milliseconds(100));
  EXPECT_FALSE(health.ready);
  out.take();
  service.begin_drain(clock.now(), out);
  EXPECT_EQ(out.take().size(), 2u);  // Goodbye to both
}

TEST_F(TokenizerServiceTest, MessagesOfOthersAreIgnored) {
  EXPECT_TRUE(say(protocol::Dispatch{}).empty());
  EXPECT_TRUE(say(protocol::Submit{}).empty());
}

TEST(TextServer, TwoModelsOfOneNameAreRefused) {
  const CheckpointFolder folder;
  std::vector<std::unique_ptr<model_text::ServedModel>> models;
  for (int i = 0; i < 2; ++i) models.push_back(model_text::load_served_model("demo=" + folder.path()).value());
  EXPECT_THROW(TextServer{std::move(models)}, Error);
}

}  // namespace tokenizer_service_test
}  // namespace optserve::tokenizer
