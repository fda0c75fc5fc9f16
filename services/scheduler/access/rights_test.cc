// Every message with every right, and which of them are allowed.
#include "scheduler/access/rights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "scheduler/scheduler_test_fakes.h"

namespace optserve::scheduler {
namespace rights_test {
namespace {

using ::testing::HasSubstr;

keys::AllowedKey key_with(const std::string& rights) {
  auto key = keys::parse_allowed_key(keys::PublicKey{}.text() + " name=someone " + rights);
  EXPECT_TRUE(key.ok()) << key.refusal().message;
  return key.value();
}

template <size_t kIndex = 0>
protocol::Message empty_message(size_t index) {
  if constexpr (kIndex < protocol::kMessageKinds) {
    if (index == kIndex) {
      std::variant_alternative_t<kIndex, protocol::detail::Messages::Type> body{};
      return protocol::Message(std::move(body));
    }
    return empty_message<kIndex + 1>(index);
  }
  return {};
}

std::set<std::string> allowed_messages(const std::string& rights) {
  std::set<std::string> allowed;
  for (size_t i = 0; i < protocol::kMessageKinds; ++i) {
    const protocol::Message message = empty_message(i);
    EXPECT_EQ(message.index(), i);
    if (has(key_with(rights), need_of(message))) allowed.emplace(protocol::message_name(i));
  }
  return allowed;
}

std::set<std::string> with(std::set<std::string> names) {
  names.insert({"Ping", "Pong", "Refused"});
  return names;
}

// A message that is added to the protocol is allowed to nobody until it is listed here.
TEST(Rights, EveryMessageBelongsToSomeRightsAndToNoOthers) {
  const std::set<std::string> sight{"Attach", "Cancel", "GetJob", "Credit", "GetStatus", "ListJobs", "GetGroup"};
  std::set<std::string> client = sight, controls = sight;
  client.insert("Submit");
  controls.insert({"Control", "Requeue", "Purge", "Backup"});
  std::set<std::string> both = client;
  both.insert(controls.begin(), controls.end());
  EXPECT_EQ(allowed_messages("client=a"), with(client));
  EXPECT_EQ(allowed_messages("client"), with(client));
  EXPECT_EQ(allowed_messages("operator"), with(controls));
  EXPECT_EQ(allowed_messages("client=* operator"), with(both));
  const std::set<std::string> service{"Register", "Heartbeat", "Goodbye"};
  std::set<std::string> tokenizer = service, worker = service, converter = service;
  tokenizer.insert({"Encoded", "Decoded"});
  worker.insert({"Tokens", "PromptLogprobs", "Hypotheses", "LeaseFailed"});
  converter.insert({"ConvertProgress", "LeaseFailed"});
  EXPECT_EQ(allowed_messages("tokenizer=m"), with(tokenizer));
  EXPECT_EQ(allowed_messages("worker=m"), with(worker));
  EXPECT_EQ(allowed_messages("converter=/m"), with(converter));
}

Status submit(const std::string& rights, const std::string& tenant,
              protocol::JobKind kind = protocol::JobKind::kGenerate, std::string* completed = nullptr) {
  protocol::Submit message;
  message.jobs = {testing::job_spec("k")};
  message.jobs[0].tenant = tenant;
  message.jobs[0].kind = kind;
  protocol::Message any = std::move(message);
  const Status status = check_rights(key_with(rights), any);
  if (completed != nullptr) *completed = std::get<protocol::Submit>(any).jobs[0].tenant;
  return status;
}

TEST(Rights, TheKeyDecidesTheTenant) {
  EXPECT_TRUE(submit("client=a", "a").ok());
  EXPECT_FALSE(submit("client=a", "b").ok());
  EXPECT_THAT(submit("client=a", "b").refusal().message, HasSubstr("not allowed: the key 'someone'"));
  EXPECT_TRUE(submit("client=a,b", "b").ok());
  EXPECT_TRUE(submit("client=*", "anything").ok());
  EXPECT_TRUE(submit("client=*", "").ok());
  EXPECT_TRUE(submit("client", "").ok());
  EXPECT_FALSE(submit("client", "a").ok());
  EXPECT_FALSE(submit("operator", "a").ok());
  EXPECT_FALSE(submit("worker=m", "a").ok());
}

TEST(Rights, AMissingTenantIsTheOnlyOneOfTheKey) {
  std::string tenant;
  EXPECT_TRUE(submit("client=a", "", protocol::JobKind::kGenerate, &tenant).ok());
  EXPECT_EQ(tenant, "a");
  EXPECT_TRUE(submit("client client=a", "", protocol::JobKind::kGenerate, &tenant).ok());
  EXPECT_EQ(tenant, "");
  EXPECT_THAT(submit("client=a,b", "").refusal().message, HasSubstr("name one"));
  EXPECT_THAT(submit("client=a operator", "").refusal().message, HasSubstr("the tenant without a name"));
}

TEST(Rights, OneJobOfAnotherTenantRefusesTheWholeMessage) {
  protocol::Submit message;
  message.jobs = {testing::job_spec("k"), testing::job_spec("l")};
  message.jobs[0].tenant = "a";
  message.jobs[1].tenant = "b";
  protocol::Message any = message;
  EXPECT_FALSE(check_rights(key_with("client=a"), any).ok());
  EXPECT_TRUE(check_rights(key_with("client=a,b"), any).ok());
}

TEST(Rights, ConversionsAreForOperators) {
  EXPECT_FALSE(submit("client=a", "a", protocol::JobKind::kConvert).ok());
  EXPECT_TRUE(submit("client=a operator", "a", protocol::JobKind::kConvert).ok());
}

TEST(Rights, ListsAndGroupsAreOfOnesOwnTenants) {
  const auto list = [](const std::string& rights, std::optional<std::string> tenant) {
    protocol::ListJobs message;
    message.filter.tenant = std::move(tenant);
    protocol::Message any = message;
    const bool ok = check_rights(key_with(rights), any).ok();
    return ok ? std::get<protocol::ListJobs>(any).filter.tenant.value_or("(all)") : "(refused)";
  };
  EXPECT_EQ(list("client=a", "a"), "a");
  EXPECT_EQ(list("client=a", "b"), "(refused)");
  EXPECT_EQ(list("client=a", std::nullopt), "a");
  EXPECT_EQ(list("client=a", ""), "a");
  EXPECT_EQ(list("client", std::nullopt), "");
  EXPECT_EQ(list("client=a,b", std::nullopt), "(refused)");
  EXPECT_EQ(list("client=*", std::nullopt), "(all)");
  EXPECT_EQ(list("operator", std::nullopt), "(all)");
  EXPECT_EQ(list("operator", "b"), "b");
  const auto group = [](const std::string& rights, const std::string& tenant) {
    protocol::Message any = protocol::GetGroup{1, tenant, "g", true};
    return check_rights(key_with(rights), any).ok() ? std::get<protocol::GetGroup>(any).tenant : "(refused)";
  };
  EXPECT_EQ(group("client=a", "a"), "a");
  EXPECT_EQ(group("client=a", ""), "a");
  EXPECT_EQ(group("client=a", "b"), "(refused)");
  EXPECT_EQ(group("operator", "b"), "b");
}

TEST(Rights, ServicesAreOfTheirKindAndModels) {
  const auto may = [](const std::string& rights, protocol::ServiceKind kind, const std::string& model) {
    protocol::Register message;
    message.kind = kind;
    if (!model.empty()) message.models = {testing::model_info("own"), testing::model_info(model)};
    protocol::Message any = message;
    return check_rights(key_with(rights), any).ok();
  };
  using Kind = protocol::ServiceKind;
  EXPECT_TRUE(may("worker=own", Kind::kWorker, "own"));
  EXPECT_FALSE(may("worker=own", Kind::kWorker, "other"));
  EXPECT_TRUE(may("worker=*", Kind::kWorker, "other"));
  EXPECT_FALSE(may("worker=own", Kind::kTokenizer, "own"));
  EXPECT_FALSE(may("worker=own", Kind::kConverter, ""));
  EXPECT_TRUE(may("tokenizer=own", Kind::kTokenizer, "own"));
  EXPECT_FALSE(may("tokenizer=own", Kind::kTokenizer, "other"));
  EXPECT_FALSE(may("tokenizer=own", Kind::kWorker, "own"));
  EXPECT_TRUE(may("converter=/m", Kind::kConverter, ""));
  EXPECT_FALSE(may("converter=/m", Kind::kWorker, "own"));
  EXPECT_FALSE(may("client=* operator", Kind::kWorker, "own"));
}

TEST(Rights, ConversionsLieInTheFoldersOfTheKey) {
  const std::vector<std::string> folders{"/models", "/data/opt"};
  const auto in = [&](const std::string& source, const std::string& destination) {
    protocol::ConvertSpec spec;
    spec.source = source, spec.destination = destination;
    return covers(folders, spec);
  };
  EXPECT_TRUE(in("/models/a", "/data/opt/b"));
  EXPECT_TRUE(in("/models/./a", "/models//b"));
  EXPECT_TRUE(in("a", "b/c"));
  EXPECT_FALSE(in("/models/a", "/data/other"));
  EXPECT_FALSE(in("/models2/a", "/models/b"));
  EXPECT_FALSE(in("/models/../etc", "/models/b"));
  EXPECT_FALSE(in("../a", "b"));
  EXPECT_FALSE(in("/etc/a", "/models/b"));
}

}  // namespace
}  // namespace rights_test
}  // namespace optserve::scheduler
