// docs/protocol.json and the tables of docs/protocol.md say what the code does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "protocol/codec.h"
#include "protocol/protocol_description.h"
#include "protocol/validate.h"

namespace optserve::protocol {
namespace protocol_doc_test {

constexpr const char* kHint =
    "made anew by: ninja -C build/dev describe_protocol && build/dev/bin/describe_protocol docs";

std::string read(const std::string& name) {
  std::ostringstream text;
  text << std::ifstream(OPTSERVE_DOCS "/" + name).rdbuf();
  return text.str();
}

TEST(ProtocolDocument, JsonIsMadeFromTheCode) { EXPECT_EQ(read("protocol.json"), describe_protocol()) << kHint; }

TEST(ProtocolDocument, TablesAreMadeFromTheCode) {
  const std::string page = read("protocol.md");
  EXPECT_EQ(page, with_made_parts(page)) << kHint;
}

TEST(ProtocolDocument, ExplainsEveryFieldOfClientMessages) {
  std::string tables;
  for (const MadePart& part : made_parts()) {
    if (part.name == "fields of client messages") tables = part.text;
  }
  ASSERT_FALSE(tables.empty());
  EXPECT_EQ(tables.find(" |  |\n"), std::string::npos) << tables.substr(0, tables.find(" |  |\n") + 6);
}

TEST(ProtocolDocument, HasNoNoteOfAFieldThatIsNotThere) {
  const std::string json = describe_protocol();
  std::set<std::string_view> seen;
  for (const FieldNote& note : field_notes()) {
    EXPECT_TRUE(seen.insert(note.field).second) << note.field << " twice";
    const std::string name(note.field.substr(note.field.find('.') + 1));
    EXPECT_NE(json.find("{\"name\":\"" + name + "\","), std::string::npos) << note.field;
  }
}

JobSpec valid_job() {
  JobSpec job;
  job.key = "k";
  job.model = "m";
  job.prompt = "p";
  return job;
}

// Sets the field so that its value, its bytes or its entries are `size`.
template <class T>
void set_size(T& field, double size) {
  const auto count = static_cast<size_t>(std::max(size, 0.0));
  if constexpr (std::is_same_v<T, std::string>) {
    field.assign(count, 'a');
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    field.assign(count, "a");
  } else if constexpr (std::is_same_v<T, std::vector<TokenId>>) {
    field.assign(count, 1);
  } else if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    field = static_cast<T>(size);
  } else {
    FAIL() << "no sizes of this type";
  }
}

bool is_valid(const std::string& name, double size) {
  JobSpec job = valid_job();
  job.fields([&](std::string_view field, auto& value) {
    if (field == name) set_size(value, size);
  });
  if (name == "max_new_tokens" || name == "prompt_best") job.prompt_logprobs = true;
  if (name == "prompt_ids" && size > 0) job.prompt.clear();
  if (name == "prompt" && size == 0) job.prompt_ids = {2};
  return validate(job).ok();
}

TEST(ProtocolDocument, StatesTheBoundsThatValidateHolds) {
  int checked = 0;
  visit_fields(JobSpec{}, [&](std::string_view field, const auto&) {
    const FieldNote* note = find_note("JobSpec", field);
    if (note == nullptr || note->bounds.of == FieldBounds::Of::kNothing) return;
    const std::string name(field);
    SCOPED_TRACE(name);
    const auto [of, min, max] = note->bounds;
    EXPECT_TRUE(is_valid(name, min));
    EXPECT_TRUE(is_valid(name, max));
    EXPECT_FALSE(is_valid(name, max + 1));
    if (min > 0 || of == FieldBounds::Of::kNumber) {
      EXPECT_FALSE(is_valid(name, min - 1));
    }
    ++checked;
  });
  EXPECT_EQ(checked, 18);
}

}  // namespace protocol_doc_test
}  // namespace optserve::protocol
