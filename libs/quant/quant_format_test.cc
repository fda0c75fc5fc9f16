#include "quant/quant_format.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "base/format_names.h"

namespace optserve::quant {
namespace quant_format_test {

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
    EXPECT_EQ(is_plain(row.format), is_floating(row.storage)) << row.name;
    EXPECT_GE(row.bits_per_weight * static_cast<double>(row.packed),
              8.0 * static_cast<double>(dtype_bytes(row.storage)));
    if (is_plain(row.format)) {
      EXPECT_EQ(row.bits_per_weight, 8.0 * static_cast<double>(dtype_bytes(row.storage))) << row.name;
      EXPECT_EQ(plain_format(row.storage), row.format) << row.name;
    }
  }
}

TEST(QuantFormat, SizesOfARow) {
  EXPECT_EQ(elements_per_row(QuantFormat::kF16, 300), 300);
  EXPECT_EQ(scales_per_row(QuantFormat::kF16, 300), 0);
  EXPECT_EQ(elements_per_row(QuantFormat::kInt8, 300), 300);
  EXPECT_EQ(scales_per_row(QuantFormat::kFp8, 300), 1);
  EXPECT_EQ(elements_per_row(QuantFormat::kInt4, 384), 192);
  EXPECT_EQ(scales_per_row(QuantFormat::kInt4, 384), 3);
  EXPECT_EQ(input_multiple(QuantFormat::kInt8), 1);
  EXPECT_EQ(input_multiple(QuantFormat::kInt4), 128);
}

TEST(QuantFormat, NamesOfQuantisations) {
  EXPECT_EQ(kQuantisationNames, (std::array<std::string_view, 4>{"int8", "int8-mse", "fp8", "int4"}));
  for (const std::string_view name : kQuantisationNames) {
    const auto found = find_quantisation(name);
    ASSERT_TRUE(found) << name;
    EXPECT_EQ(quantisation_name(*found), name);
    EXPECT_FALSE(is_plain(found->format)) << name;
  }
  for (const char* name : {"", "none", "fp16", "int5"}) EXPECT_FALSE(find_quantisation(name)) << name;
}

TEST(QuantFormat, UnknownNamesAndTypesHaveNoFormat) {
  EXPECT_EQ(find_quant_format("fp33"), nullptr);
  EXPECT_EQ(find_quant_format(""), nullptr);
  EXPECT_EQ(plain_format(DType::kI32), std::nullopt);
}

}  // namespace quant_format_test
}  // namespace optserve::quant
