#include "converter/formats/faster_transformer/c_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "support/temporary_folder.h"

namespace optserve::converter {
namespace c_model_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A model of one layer and one head of two elements, with four words, in one part of fp32.
class CModelTest : public ::testing::Test {
 protected:
  CModelTest() {
    const std::string layer = "layers.0.";
    const std::map<std::string, int> elements = {{"wte", 4 * 2},
                                                 {"wpe", 2 * 2},
                                                 {"final_layernorm.weight", 2},
                                                 {"final_layernorm.bias", 2},
                                                 {layer + "input_layernorm.weight", 2},
                                                 {layer + "input_layernorm.bias", 2},
                                                 {layer + "post_attention_layernorm.weight", 2},
                                                 {layer + "post_attention_layernorm.bias", 2},
                                                 {layer + "attention.query_key_value.weight.0", 2 * 6},
                                                 {layer + "attention.query_key_value.bias.0", 6},
                                                 {layer + "attention.dense.weight.0", 2 * 2},
                                                 {layer + "attention.dense.bias", 2},
                                                 {layer + "mlp.dense_h_to_4h.weight.0", 2 * 8},
                                                 {layer + "mlp.dense_h_to_4h.bias.0", 8},
                                                 {layer + "mlp.dense_4h_to_h.weight.0", 8 * 2},
                                                 {layer + "mlp.dense_4h_to_h.bias", 2}};
    for (const auto& [name, count] : elements) {
      std::ofstream(folder_.path() + "/model." + name + ".bin") << std::string(static_cast<size_t>(count) * 4, '\0');
    }
  }

  Result<ForeignCheckpoint> open(const std::string& more) const {
    std::ofstream(folder_.path() + "/config.ini")
        << "[gpt]\nnum_layer = 1\nhead_num = 1\nsize_per_head = 2\nvocab_size = 4\nmax_pos_seq_len = 2\n" + more;
    return open_c_model(folder_.path());
  }

  test_support::TemporaryFolder folder_;
};

TEST_F(CModelTest, IdsOfStartAndEndAreThoseOfTheFile) {
  const auto opened = open("start_id = 0\nend_id = 3\n");
  ASSERT_TRUE(opened.ok()) << opened.refusal().message;
  EXPECT_EQ(opened.value().hints.bos_id, 0);
  EXPECT_THAT(opened.value().hints.eos_ids, ElementsAre(3));
}

TEST_F(CModelTest, AFileWithoutIdsSaysNothingOfThem) {
  const auto opened = open("");
  ASSERT_TRUE(opened.ok()) << opened.refusal().message;
  EXPECT_EQ(opened.value().hints.bos_id, std::nullopt);
  EXPECT_TRUE(opened.value().hints.eos_ids.empty());
}

TEST_F(CModelTest, AnIdOutsideTheVocabularyIsRefusedByName) {
  EXPECT_THAT(open("start_id = 4\n").refusal().message, HasSubstr("start_id is '4', expected a number from 0 to 3"));
  EXPECT_THAT(open("end_id = none\n").refusal().message, HasSubstr("end_id is 'none'"));
}

TEST_F(CModelTest, AFileOfAnotherSizeIsRefused) {
  std::ofstream(folder_.path() + "/model.wpe.bin") << "short";
  EXPECT_THAT(open("").refusal().message, HasSubstr("model.wpe.bin: has 5 bytes, the sizes in config.ini give 16"));
}

}  // namespace c_model_test
}  // namespace optserve::converter
