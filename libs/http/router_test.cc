#include "http/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "http/exchange.h"
#include "http/message/answer.h"

namespace optserve::http {
namespace router_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

class RouterTest : public ::testing::Test {
 protected:
  RouterTest() {
    for (const char* pattern :
         {"/ui/{path...}", "/v1/jobs/{id}", "/v1/jobs/{id}/events", "/v1/jobs/dead", "/v1/jobs"}) {
      router.add({"GET", pattern, [](const std::shared_ptr<Exchange>&) {}, {}});
    }
    router.add({"POST", "/v1/jobs", [](const std::shared_ptr<Exchange>&) {}, {}});
    router.add({"DELETE", "/v1/jobs/{id}", [](const std::shared_ptr<Exchange>&) {}, {}});
  }
  Router::Match find(const std::string& method, const std::string& path) const {
    return router.find(method, *parse_target(path));
  }
  std::string pattern(const std::string& method, const std::string& path) const {
    const Router::Match match = find(method, path);
    return match.route == nullptr ? "none" : match.route->pattern;
  }

  Router router;
};

TEST_F(RouterTest, FindsTheMostParticularPattern) {
  EXPECT_EQ(pattern("GET", "/v1/jobs/abc"), "/v1/jobs/{id}");
  EXPECT_EQ(pattern("GET", "/v1/jobs/dead"), "/v1/jobs/dead");
  EXPECT_EQ(pattern("DELETE", "/v1/jobs/dead"), "/v1/jobs/{id}");
  EXPECT_EQ(pattern("GET", "/v1/jobs/abc/events"), "/v1/jobs/{id}/events");
  EXPECT_EQ(pattern("HEAD", "/v1/jobs"), "/v1/jobs");
  for (const char* path : {"/", "/v1", "/v1/jobs/a/b", "/v1//jobs", "/v1/Jobs", "*"}) {
    EXPECT_EQ(pattern("GET", path), "none") << path;
  }
}

TEST_F(RouterTest, GivesParameters) {
  EXPECT_THAT(find("GET", "/v1/jobs/a%2Fb/events").parameters, ElementsAre(Pair("id", "a/b")));
  EXPECT_THAT(find("GET", "/ui/css/page.css").parameters, ElementsAre(Pair("path", "css/page.css")));
  EXPECT_THAT(find("GET", "/ui").parameters, ElementsAre(Pair("path", "")));
}

TEST_F(RouterTest, SaysWhichMethodsAPathTakes) {
  EXPECT_EQ(find("PUT", "/v1/jobs").allow, "GET, HEAD, OPTIONS, POST");
  EXPECT_EQ(find("PUT", "/v1/jobs/x").allow, "DELETE, GET, HEAD, OPTIONS");
  EXPECT_THAT(find("PUT", "/nothing").allow, IsEmpty());
}

TEST(Answer, TextFromARequestCannotAddFields) {
  const Headers headers{{"X-Request-Id", "a\r\nSet-Cookie: b"}};
  const std::string text = render({.status = 200, .headers = headers, .date = ""});
  EXPECT_EQ(text, "HTTP/1.1 200 OK\r\nX-Request-Id: a  Set-Cookie: b\r\nContent-Length: 0\r\n\r\n");
}

TEST(Answer, DatesAreThoseOfHttp) { EXPECT_EQ(http_date(784'111'777'000), "Sun, 06 Nov 1994 08:49:37 GMT"); }

TEST(Headers, ListsAreSearchedByElement) {
  const Headers headers{{"Connection", "keep-alive, X"}, {"connection", "Upgrade"}};
  EXPECT_TRUE(headers.has_token("CONNECTION", "x"));
  EXPECT_TRUE(headers.has_token("Connection", "upgrade"));
  EXPECT_FALSE(headers.has_token("Connection", "keep"));
}

}  // namespace router_test
}  // namespace optserve::http
