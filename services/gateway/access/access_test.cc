#include "gateway/access/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace optserve::gateway {
namespace access_test {

constexpr int64_t kWall = 1'000'000;

class AccessTest : public ::testing::Test {
 protected:
  AccessTest() {
    add({.id = "user", .tenant = "mine", .may_submit = true}, user);
    add({.id = "boss", .tenant = "ops", .may_submit = true, .may_operate = true}, boss);
    add({.id = "watch", .tenant = "ops", .may_operate = true}, watch);
    access.set_keys(keys);
  }
  void add(ApiKey key, const std::string& secret) {
    ASSERT_TRUE(set_secret(key, secret).ok());
    keys.push_back(std::move(key));
  }
  ApiKey& key(const std::string& id) { return *std::ranges::find(keys, id, &ApiKey::id); }
  http::Request request(const std::string& method, const std::string& route, const std::string& secret) {
    http::Request request;
    request.method = method;
    request.route = route;
    if (!secret.empty()) request.headers.set("Authorization", "Bearer " + secret);
    return request;
  }
  int status(const std::string& method, const std::string& route, const std::string& secret) {
    http::Request one = request(method, route, secret);
    const auto error = access.check(one, now, kWall);
    return error ? error->status : 200;
  }

  const std::string user = random_api_key(), boss = random_api_key(), watch = random_api_key();
  std::vector<ApiKey> keys;
  Access access{true};
  Instant now{};
};

TEST_F(AccessTest, EachRouteHasItsRight) {
  struct Case {
    const char* method;
    const char* route;
    int none, of_user, of_watch;
  };
  for (const Case& one : {Case{"GET", "/health", 200, 200, 200},
                          Case{"GET", "/version", 200, 200, 200},
                          Case{"GET", "/ui/{file...}", 200, 200, 200},
                          Case{"GET", "/v1/jobs/{id}/record", 401, 200, 200},
                          Case{"GET", "/metrics", 200, 200, 200},
                          Case{"GET", "/readyz", 200, 200, 200},
                          Case{"GET", "/v1/models", 401, 200, 200},
                          Case{"HEAD", "/v1/jobs", 401, 200, 200},
                          Case{"GET", "/v1/queue", 401, 200, 200},
                          Case{"POST", "/tokenize", 401, 200, 200},
                          Case{"POST", "/v1/jobs/{id}/cancel", 401, 200, 200},
                          Case{"POST", "/v1/completions", 401, 200, 403},
                          Case{"POST", "/generate", 401, 200, 403},
                          Case{"POST", "/v1/jobs", 401, 200, 403},
                          Case{"POST", "/v1/queue", 401, 403, 200},
                          Case{"POST", "/v1/jobs/{id}/requeue", 401, 403, 200},
                          Case{"DELETE", "/v1/jobs", 401, 403, 200},
                          Case{"DELETE", "/v1/jobs/{id}", 401, 403, 200},
                          Case{"DELETE", "/v1/responses/{id}", 401, 200, 200},
                          Case{"POST", "/api/show", 401, 200, 200},
                          Case{"GET", "", 401, 200, 200},
                          Case{"DELETE", "", 401, 200, 403}}) {
    SCOPED_TRACE(std::string(one.method) + " " + one.route);
    EXPECT_EQ(status(one.method, one.route, ""), one.none);
    EXPECT_EQ(status(one.method, one.route, user), one.of_user);
    EXPECT_EQ(status(one.method, one.route, watch), one.of_watch);
    EXPECT_EQ(status(one.method, one.route, boss), 200);
  }
}

TEST_F(AccessTest, MetricsCanBeClosed) {
  Access closed(true, false);
  closed.set_keys(keys);
  for (const auto& [secret, expected] : {std::pair{std::string(), 401}, {user, 403}, {watch, 0}}) {
    http::Request one = request("GET", "/metrics", secret);
    const auto error = closed.check(one, now, kWall);
    EXPECT_EQ(error ? error->status : 0, expected);
  }
}

TEST_F(AccessTest, OnlyOneBearerTokenIsTaken) {
  const auto status_of = [&](const http::Headers& headers) {
    http::Request one = request("GET", "/v1/models", "");
    one.headers = headers;
    const auto error = access.check(one, now, kWall);
    return error ? error->status : 200;
  };
  EXPECT_EQ(status_of({{"authorization", "bearer " + user}}), 200);
  EXPECT_EQ(status_of({{"Authorization", "Bearer  " + user + " "}}), 200);
  for (const std::string& value :
       {std::string(), std::string("Bearer"), std::string("Bearer "), "Basic " + user, user, "Bearer " + user + "0",
        "Bearer " + random_api_key(), "Bearer " + std::string(100'000, 'x')}) {
    EXPECT_EQ(status_of({{"Authorization", value}}), 401) << value.substr(0, 90);
  }
  EXPECT_EQ(status_of({{"Authorization", "Bearer " + user}, {"Authorization", "Bearer " + user}}), 401);
}

TEST_F(AccessTest, TheCallerIsTheKeysTenant) {
  http::Request one = request("GET", "/v1/jobs", user);
  ASSERT_FALSE(access.check(one, now, kWall));
  EXPECT_EQ(one.note("key"), "user");
  const http_api::Caller mine = caller_of(one);
  EXPECT_EQ(mine.tenant, "mine");
  EXPECT_TRUE(mine.may_see("mine"));
  EXPECT_FALSE(mine.may_see("yours") || mine.may_see(""));
  EXPECT_EQ(mine.tenant_for("").value(), "mine");
  EXPECT_EQ(mine.tenant_for("mine").value(), "mine");
  EXPECT_EQ(mine.tenant_for("yours").error().status, 403);
  http::Request other = request("GET", "/v1/jobs", boss);
  ASSERT_FALSE(access.check(other, now, kWall));
  EXPECT_TRUE(caller_of(other).may_see("mine"));
  EXPECT_EQ(caller_of(other).tenant_for("").value(), "ops");
  EXPECT_EQ(caller_of(other).tenant_for("mine").value(), "mine");
}

TEST_F(AccessTest, WithoutKeysEverybodyMayDoAnything) {
  Access open(false);
  http::Request one = request("POST", "/v1/queue", "");
  EXPECT_FALSE(open.check(one, now, kWall));
  EXPECT_TRUE(caller_of(one).may_operate);
  EXPECT_EQ(caller_of(one).tenant_for("any").value(), "any");
  EXPECT_TRUE(open.open_jobs(one, 1'000'000).ok());
}

TEST_F(AccessTest, WithoutAnyKeyLeftNobodyIsLetIn) {
  access.set_keys({});
  EXPECT_EQ(status("GET", "/v1/models", user), 401);
}

TEST_F(AccessTest, RequestsAMinuteAreBounded) {
  key("user").requests_per_minute = 2;
  access.set_keys(keys);
  const auto wait = [&] {
    http::Request one = request("GET", "/v1/models", user);
    const auto error = access.check(one, now, kWall);
    EXPECT_EQ(error ? error->status : 429, 429);
    return static_cast<double>(error ? error->retry_after_ms : 0);
  };
  EXPECT_EQ(wait(), 0);
  EXPECT_EQ(wait(), 0);
  EXPECT_NEAR(wait(), 30'000, 2);
  now += seconds(10);
  EXPECT_NEAR(wait(), 20'000, 2);
  access.set_keys(keys);  // does not fill the bucket
  now += seconds(20);
  EXPECT_EQ(wait(), 0);
  EXPECT_GT(wait(), 0);
  EXPECT_EQ(status("GET", "/v1/models", boss), 200);
  now += seconds(100'000);  // the bucket holds one minute's
  EXPECT_EQ(wait() + wait(), 0);
  EXPECT_GT(wait(), 0);
}

TEST_F(AccessTest, RetryAfterIsAMinuteAtMost) {
  key("user").requests_per_minute = 1;
  access.set_keys(keys);
  status("GET", "/v1/models", user);
  http::Request one = request("GET", "/v1/models", user);
  const auto error = access.check(one, now, kWall);
  ASSERT_TRUE(error);
  EXPECT_THAT(http_api::error_headers(*error),
              ::testing::Contains(std::pair<std::string, std::string>("Retry-After", "60")));
}

TEST_F(AccessTest, OpenJobsAreBoundedUntilTheyEnd) {
  key("user").jobs_max = 3;
  access.set_keys(keys);
  http::Request one = request("POST", "/v1/jobs", user);
  ASSERT_FALSE(access.check(one, now, kWall));
  EXPECT_EQ(access.open_jobs(one, 4).error().status, 400);  // never possible: no use in asking again
  std::shared_ptr<OpenJobs> two = access.open_jobs(one, 2).value();
  EXPECT_EQ(access.open_jobs(one, 2).error().status, 429);
  std::shared_ptr<OpenJobs> third = access.open_jobs(one, 1).value();
  EXPECT_EQ(status("POST", "/v1/completions", user), 429);
  EXPECT_EQ(status("POST", "/v1/jobs/{id}/cancel", user), 200);
  access.set_keys(keys);  // forgets nothing
  EXPECT_EQ(status("POST", "/v1/completions", user), 429);
  two->end_one();
  EXPECT_EQ(status("POST", "/v1/completions", user), 200);
  third.reset();
  EXPECT_EQ(access.open_jobs(one, 3).error().status, 429);
  two.reset();
  EXPECT_TRUE(access.open_jobs(one, 3).ok());
  http::Request unbounded = request("POST", "/v1/jobs", boss);
  ASSERT_FALSE(access.check(unbounded, now, kWall));
  EXPECT_TRUE(access.open_jobs(unbounded, 1'000).ok());
}

}  // namespace access_test
}  // namespace optserve::gateway
