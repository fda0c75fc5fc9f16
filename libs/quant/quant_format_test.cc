#include "quant/quant_format.h"

#include <gtest/gtest.h>

#include <set>

namespace optserve {
namespace {

TEST(QuantFormat, EveryRowIsFoundByNameAndByFormat) {
  std::set<std::string_view> names;
  for (const QuantFormatInfo& row : quant_formats()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name << " appears twice";
    ASSERT_NE(find_quant_format(row.name), nullptr) << row.name;
    EXPECT_EQ(find_quant_format(row.name)->format, row.format);
    EXPECT_EQ(info(row.format).name, row.name);
  }
}

TEST(QuantFormat, BitsCoverTheStorageOfOneWeight) {
  for (const QuantFormatInfo& row : quant_formats()) {
    EXPECT_GT(row.bits_per_weight, 0) << row.name;
    if (tensor::is_floating(row.storage)) {
      EXPECT_EQ(row.bits_per_weight, 8.0 * static_cast<double>(dtype_bytes(row.storage))) << row.name;
      EXPECT_EQ(plain_format(row.storage), row.format) << row.name;
    }
  }
}

TEST(QuantFormat, UnknownNamesAndTypesHaveNoFormat) {
  EXPECT_EQ(find_quant_format("fp33"), nullptr);
  EXPECT_EQ(find_quant_format(""), nullptr);
  EXPECT_EQ(plain_format(DType::kI32), std::nullopt);
}

}  // namespace
}  // namespace optserve
