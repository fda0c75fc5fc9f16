#include "converter/vocabulary/tokenizer_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "support/temporary_folder.h"
#include "tokenizer/small_vocabulary.h"

namespace optserve::converter {
namespace tokenizer_files_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using tokenizer::Pairs;
using tokenizer::SmallVocabulary;

// A checkpoint's folder with a tokenizer, and another folder with the one that is given for it.
class TokenizerFilesTest : public ::testing::Test {
 protected:
  TokenizerFilesTest() {
    for (const char* folder : {"checkpoints/opt", "other"}) std::filesystem::create_directories(folder_ / folder);
  }
  void write(const std::string& path, const std::string& text) const { std::ofstream(folder_ / path) << text; }
  void write_tokenizer(const std::string& folder, const SmallVocabulary& words) const {
    write(folder + "/vocab.json", words.json());
    write(folder + "/merges.txt", words.merges_text());
  }
  std::vector<std::string> notes() const {
    const auto found = find_tokenizer({.input = folder_ / "checkpoints/opt",
                                       .vocab_file = folder_ / "other/vocab.json",
                                       .merges_file = folder_ / "other/merges.txt"});
    EXPECT_TRUE(found.ok()) << found.refusal().message;
    EXPECT_TRUE(found.value());
    return found.value()->notes;
  }

  test_support::TemporaryFolder folder_;
};

TEST_F(TokenizerFilesTest, ATokenizerThatIsNotTheCheckpointsIsNamed) {
  write_tokenizer("other", SmallVocabulary(Pairs{{"a", "b"}}));
  EXPECT_THAT(notes(), IsEmpty()) << "the checkpoint has none";
  write_tokenizer("checkpoints/opt", SmallVocabulary(Pairs{{"a", "b"}}));
  EXPECT_THAT(notes(), IsEmpty());
  write_tokenizer("checkpoints/opt", SmallVocabulary(Pairs{{"a", "c"}}));
  EXPECT_THAT(notes(),
              ElementsAre(HasSubstr("other/vocab.json is not the tokenizer that lies with the checkpoint: 1 of "
                                    "its 262 tokens differ, first id 260, which is 'ac' there and 'ab' here")));
  write_tokenizer("checkpoints/opt", SmallVocabulary(Pairs{{"a", "b"}, {"c", "d"}}));
  EXPECT_THAT(notes(), ElementsAre(HasSubstr("2 of its 263 tokens differ, first id 261, which is 'cd' there")));
  SmallVocabulary shorter(Pairs{{"a", "b"}});
  shorter.tokens.pop_back();
  write_tokenizer("checkpoints/opt", shorter);
  EXPECT_THAT(notes(), ElementsAre(HasSubstr("it has 262 tokens, the checkpoint's 261")));
  write_tokenizer("checkpoints/opt", SmallVocabulary(Pairs{{"a", "b"}}));
  write("checkpoints/opt/merges.txt", "#version: 0.2\n");
  EXPECT_THAT(notes(), ElementsAre(HasSubstr("the merges differ; texts are encoded as the file that was given says")));
}

// A tokenizer of an unsupported kind may be the reason why another one is given.
TEST_F(TokenizerFilesTest, TheCheckpointsOwnTokenizerNeedNotBeGood) {
  write_tokenizer("other", SmallVocabulary({}));
  write("checkpoints/opt/tokenizer.json", R"({"model": {"type": "Unigram"}})");
  EXPECT_THAT(notes(), IsEmpty());
}

// As in Galactica: digits one by one, and punctuation separately.
TEST_F(TokenizerFilesTest, ASequenceOfPreTokenizersIsRefusedWithItsKinds) {
  write(
      "checkpoints/opt/tokenizer.json",
      R"({"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split"}, {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel"}]}})");
  const auto found = find_tokenizer({.input = folder_ / "checkpoints/opt"});
  ASSERT_FALSE(found.ok());
  EXPECT_THAT(found.refusal().message,
              HasSubstr("pre_tokenizer is the sequence Split, Digits, ByteLevel, expected a byte-level BPE"));
  EXPECT_THAT(found.refusal().message, HasSubstr("--tokenizer none converts the model to serve token ids only"));
}

}  // namespace tokenizer_files_test
}  // namespace optserve::converter
