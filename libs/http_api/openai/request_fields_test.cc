#include "http_api/openai/request_fields.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "http_api/jobs/job_fields.h"
#include "http_api/jobs/job_list.h"
#include "http_api/metaseq/metaseq_request.h"
#include "http_api/openai/completion_fields.h"
#include "http_api/tokenize/tokenize.h"

namespace optserve::http_api {
namespace request_fields_test {

using nlohmann::json;

const std::vector<const FieldTable*> kTables = {&completion_fields(), &tokenize_fields(), &detokenize_fields(),
                                                &job_fields(),        &metaseq_fields(),  &queue_control_fields()};

TEST(RequestFields, TablesNameEachFieldOnceAndExplainIt) {
  for (const FieldTable* table : kTables) {
    std::set<std::string_view> names;
    for (const FieldInfo& field : *table) {
      EXPECT_TRUE(names.insert(field.name).second) << field.name;
      EXPECT_FALSE(field.help.empty()) << field.name;
      EXPECT_TRUE(json::accept(field.fallback)) << field.name;
      EXPECT_TRUE(field.neutral.empty() || json::accept(field.neutral)) << field.name;
      EXPECT_LE(field.min, field.max) << field.name;
    }
  }
}

TEST(RequestFields, DefaultsAreValuesThatTheTableAllows) {
  for (const FieldTable* table : kTables) {
    for (FieldInfo field : *table) {
      field.required = false;
      const json object{{std::string(field.name), json::parse(field.fallback)}};
      EXPECT_FALSE(check_fields(object, {field})) << field.name;
    }
  }
}

TEST(RequestFields, SchemasHaveTypeRangeAndDefault) {
  for (const FieldTable* table : kTables) {
    for (const FieldInfo& field : *table) {
      auto schema = field_schema(field);
      EXPECT_EQ(schema["description"], field.help);
      if (!field.required) {
        EXPECT_EQ(schema["default"], nlohmann::ordered_json::parse(field.fallback)) << field.name;
      }
      if (field.use == FieldUse::kRefused) {
        EXPECT_EQ(schema["enum"][0], nullptr);
        EXPECT_EQ(schema["enum"].size(), field.neutral.empty() ? 1u : 2u);
        continue;
      }
      if (field.kind == FieldKind::kAny) continue;
      EXPECT_EQ(schema["anyOf"][1]["type"], "null");
      schema = schema["anyOf"][0];
      EXPECT_TRUE(schema.contains("type") || schema.contains("anyOf")) << field.name;
      const bool is_number = field.kind == FieldKind::kInteger || field.kind == FieldKind::kNumber;
      EXPECT_EQ(schema.contains("maximum"), is_number || field.kind == FieldKind::kSeed) << field.name;
      if (is_number) {
        EXPECT_EQ(schema["maximum"], field.max);
        EXPECT_EQ(schema[field.min_excluded ? "exclusiveMinimum" : "minimum"], field.min);
      }
    }
  }
}

}  // namespace request_fields_test
}  // namespace optserve::http_api
