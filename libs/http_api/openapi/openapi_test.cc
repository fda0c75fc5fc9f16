#include "http_api/openapi/openapi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "http_api/openai/completion_fields.h"

namespace optserve::http_api {
namespace openapi_test {

using nlohmann::json;

TEST(OpenApi, DescribesRoutesByTheTablesThatCheckThem) {
  const std::vector<RouteName> routes = {
      {"POST", "/v1/completions"}, {"GET", "/v1/models/{id...}"}, {"GET", "/v1/jobs"}, {"GET", "/unknown/{x}/{y}"}};
  const json document = json::parse(openapi_document(routes, "1.2.3"));
  EXPECT_EQ(document["openapi"], "3.1.0");
  EXPECT_EQ(document["info"]["version"], "1.2.3");
  EXPECT_EQ(document["paths"].size(), 4u);
  const json body =
      document["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"];
  EXPECT_EQ(body["properties"].size(), completion_fields().size());
  EXPECT_EQ(body["required"], json({"prompt"}));
  EXPECT_EQ(body["additionalProperties"], false);
  EXPECT_EQ(document["paths"]["/v1/models/{id}"]["get"]["parameters"][0]["name"], "id");
  EXPECT_EQ(document["paths"]["/v1/jobs"]["get"]["parameters"].size(), 7u);
  EXPECT_EQ(document["paths"]["/unknown/{x}/{y}"]["get"]["parameters"].size(), 2u) << "routes are at least listed";
  EXPECT_FALSE(is_described(routes[3]));
  EXPECT_TRUE(is_described(routes[1]));
}

}  // namespace openapi_test
}  // namespace optserve::http_api
