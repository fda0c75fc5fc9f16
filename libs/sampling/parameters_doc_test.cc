// docs/parameters.md has the table of parameters as it is in the code.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <type_traits>

#include "sampling/sampling_params.h"

namespace optserve::sampling {
namespace parameters_doc_test {

std::string number(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

template <class T>
std::string default_text(T value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else {
    return number(static_cast<double>(value));
  }
}

template <class T>
std::string range_text(const ParameterInfo& info, T) {
  if constexpr (std::is_same_v<T, bool>) {
    return "true, false";
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    return "64 bits";
  } else {
    return (info.min_excluded ? "above " : "") + number(info.min) + " to " + number(info.max);
  }
}

std::string beams_text(WithBeams with_beams) {
  switch (with_beams) {
    case WithBeams::kRefused:
      return "default";
    case WithBeams::kZero:
      return "default or 0";
    case WithBeams::kAllowed:
      return "any";
  }
  return "";
}

std::string table() {
  std::string text = "| name | default | range | in a beam search | what it does |\n|---|---|---|---|---|\n";
  SamplingParams defaults;
  for_each_parameter(defaults, [&text](const ParameterInfo& info, auto value) {
    text += std::string("| `") + info.name + "` | " + default_text(value) + " | " + range_text(info, value) + " | " +
            beams_text(info.with_beams) + " | " + info.help + " |\n";
  });
  return text;
}

TEST(ParametersDoc, HoldsTheTable) {
  std::ifstream file(OPTSERVE_DOCS "/parameters.md");
  std::ostringstream document;
  document << file.rdbuf();
  EXPECT_NE(document.str().find(table()), std::string::npos) << "expected in docs/parameters.md:\n\n" << table();
}

TEST(Parameters, AreNamedOnceInSnakeCaseAndExplained) {
  std::set<std::string> names;
  SamplingParams params;
  for_each_parameter(params, [&names](const ParameterInfo& info, auto&) {
    const std::string name = info.name;
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_TRUE(std::ranges::all_of(name, [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; })) << name;
    EXPECT_GT(std::string(info.help).size(), 20u) << name;
  });
  EXPECT_EQ(names.size(), 22u);
}

}  // namespace parameters_doc_test
}  // namespace optserve::sampling
