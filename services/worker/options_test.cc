#include "worker/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "keys/key_pair.h"

namespace optserve::worker {
namespace options_test {

using testing::HasSubstr;

using Variables = std::map<std::string, std::string>;

WorkerOptions two_nodes(const Variables& variables, const std::string& rendezvous = {}, int node_rank = -1) {
  WorkerOptions options;
  options.model = "demo=/models/demo";
  options.world = 4;
  options.nodes = 2;
  options.group_key = "group.secret";
  options.node_rank = node_rank;
  options.rendezvous = rendezvous;
  complete_from_environment(options, [&](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::string() : found->second;
  });
  return options;
}

std::string refusal_of(const WorkerOptions& options) {
  try {
    check_options(options);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

WorkerOptions one_node() {
  WorkerOptions options;
  options.model = "demo=/models/demo";
  options.node_rank = 0;
  return options;
}

// The option accepts each of these words except the last.
void expect_words(WorkerOptions options, std::string WorkerOptions::*option, const std::vector<std::string>& words,
                  const std::string& other, const std::string& name) {
  for (const std::string& word : words) {
    options.*option = word;
    EXPECT_EQ(refusal_of(options), "accepted");
  }
  options.*option = other;
  EXPECT_THAT(refusal_of(options), HasSubstr(name));
}

TEST(ReluSkip, IsOffAutoOrAlways) {
  expect_words(one_node(), &WorkerOptions::relu_skip, {"off", "auto", "always"}, "on", "relu-skip");
}

TEST(Collectives, ArePeerNcclOrAuto) {
  WorkerOptions options = one_node();
  options.world = 4;
  expect_words(options, &WorkerOptions::collectives, {"auto", "peer", "nccl"}, "mpi", "collectives");
  options.collectives = "peer";
  options.nodes = 2;
  options.rendezvous = "host:1";
  options.group_key = "group.secret";
  EXPECT_THAT(refusal_of(options), HasSubstr("one host"));
  options.collectives = "auto";
  EXPECT_EQ(refusal_of(options), "accepted");
}

// This is how the supervisor starts the ranks: its options reach them.
TEST(CommandLine, GivesTheSameOptions) {
  WorkerOptions options;
  options.model = "demo=/models/a b";
  options.schedulers = {"tcp://a:1", "tcp://b:2"};
  options.prefix_cache = false;
  options.verify_checksums = false;
  options.random_weights = true;
  options.memory_fraction = 0.5;
  options.kv_tokens = 123'456'789'012;
  options.kv_dtype = "int8";
  options.relu_skip = "auto";
  options.fp8_activations = true;
  options.collectives = "nccl";
  options.random_up_bias = -1.5;
  options.lease_ahead = 0;
  options.bench = R"({"benchmark": "latency"})";
  options.group_key = "/keys/group.secret";
  options.rank = 3;
  options.common.log_level = "warn";
  WorkerOptions parsed;
  parsed.prefix_cache = true;
  ConfigParser given("", ""), found("", "");
  add_options(given, options);
  add_options(found, parsed);
  const std::vector<std::string> line = command_line(options);
  std::vector<const char*> arguments;
  for (const std::string& argument : line) arguments.push_back(argument.c_str());
  ASSERT_EQ(found.parse(static_cast<int>(arguments.size()), arguments.data()), -1);
  EXPECT_EQ(found.effective(), given.effective());
  EXPECT_EQ(parsed.schedulers, options.schedulers);
  EXPECT_FALSE(parsed.prefix_cache);
}

TEST(Schedulers, AreGivenOneByOneAndChecked) {
  WorkerOptions options;
  ConfigParser parser("optserve-worker", "");
  add_options(parser, options);
  const char* arguments[] = {"optserve-worker", "--scheduler=tcp://a:1", "--scheduler", "tcp://b:1", "--model=demo=/m"};
  ASSERT_EQ(parser.parse(5, arguments), -1);
  EXPECT_THAT(options.schedulers, testing::ElementsAre("tcp://a:1", "tcp://b:1"));
  options.node_rank = 0;
  EXPECT_EQ(refusal_of(options), "accepted");
  options.schedulers.push_back("tcp://a:1");
  EXPECT_THAT(refusal_of(options), HasSubstr("'tcp://a:1' is given twice"));
}

TEST(GroupPlace, ComesFromTheEnvironmentOfWhateverStartedTheWorker) {
  WorkerOptions options =
      two_nodes({{"MASTER_ADDR", "10.1.2.3"}, {"MASTER_PORT", "1234"}, {"GROUP_RANK", "1"}, {"RANK", "7"}});
  EXPECT_EQ(options.rendezvous, "10.1.2.3:1234");
  EXPECT_EQ(options.node_rank, 1);
  EXPECT_EQ(options.first_rank(), 2);
  EXPECT_EQ(refusal_of(options), "accepted");

  options = two_nodes({{"LWS_LEADER_ADDRESS", "group-0.workers.default"}, {"LWS_WORKER_INDEX", "0"}});
  EXPECT_EQ(options.rendezvous_host(), "group-0.workers.default");
  EXPECT_EQ(options.rendezvous_port(), 29500);
  EXPECT_EQ(options.node_rank, 0);

  options = two_nodes({{"MASTER_ADDR", "job-0.job"}, {"JOB_COMPLETION_INDEX", "1"}});
  EXPECT_EQ(options.rendezvous, "job-0.job:29500");
  EXPECT_EQ(options.node_rank, 1);

  options = two_nodes({{"MASTER_ADDR", "fd00::7"}, {"MASTER_PORT", "80"}, {"GROUP_RANK", "0"}});
  EXPECT_EQ(options.rendezvous_host(), "fd00::7");
  EXPECT_EQ(options.rendezvous_port(), 80);
}

TEST(GroupPlace, OptionsGoBeforeTheEnvironment) {
  const Variables variables = {{"MASTER_ADDR", "10.1.2.3"}, {"GROUP_RANK", "1"}};
  const WorkerOptions options = two_nodes(variables, "host:5000", 0);
  EXPECT_EQ(options.rendezvous, "host:5000");
  EXPECT_EQ(options.node_rank, 0);
}

// An indexed Job of single-host workers gives each an index that means nothing here.
TEST(GroupPlace, OfAGroupOnOneHostIsTheFirst) {
  WorkerOptions options;
  options.model = "demo=/models/demo";
  complete_from_environment(options, [](const std::string&) { return std::string("3"); });
  EXPECT_EQ(options.node_rank, 0);
  EXPECT_EQ(options.rendezvous, "");
  EXPECT_EQ(refusal_of(options), "accepted");
}

TEST(GroupPlace, ThatMakesNoSenseIsNamed) {
  EXPECT_THAT(refusal_of(two_nodes({{"MASTER_ADDR", "host"}})), HasSubstr("node-rank is -1, expected 0 to 1"));
  EXPECT_THAT(refusal_of(two_nodes({{"MASTER_ADDR", "host"}, {"GROUP_RANK", "two"}})), HasSubstr("node-rank"));
  EXPECT_THAT(refusal_of(two_nodes({{"GROUP_RANK", "1"}})), HasSubstr("rendezvous: expected HOST:PORT, found ''"));
  for (const char* rendezvous : {"host", "host:", ":5000", "host:0", "host:65536", "host:5x"}) {
    EXPECT_THAT(refusal_of(two_nodes({}, rendezvous, 1)), HasSubstr("rendezvous: expected HOST:PORT")) << rendezvous;
  }
  WorkerOptions options = two_nodes({}, "host:5000", 1);
  options.world = 3;
  EXPECT_THAT(refusal_of(options), HasSubstr("nodes: expected a divisor of world 3, found 2"));
  options.world = 1;
  EXPECT_THAT(refusal_of(options), HasSubstr("nodes is 2, expected 1 to 1"));
  options.world = 4;
  options.rank = 1;  // of host 0
  EXPECT_THAT(refusal_of(options), HasSubstr("rank: expected one of host 1, found 1"));
  options.rank = 3;
  EXPECT_EQ(refusal_of(options), "accepted");
}

TEST(GroupKey, IsNeededWhereOthersReachTheRendezvous) {
  for (const char* rendezvous : {"host-0:29500", "10.0.0.7:29500", "0.0.0.0:29500", "[fd00::7]:29500"}) {
    WorkerOptions options = two_nodes({}, rendezvous, 1);
    EXPECT_EQ(refusal_of(options), "accepted") << rendezvous;
    options.group_key.clear();
    EXPECT_THAT(refusal_of(options), HasSubstr("others reach that, and the group has no key")) << rendezvous;
    options.keys.insecure = true;
    EXPECT_EQ(refusal_of(options), "accepted") << rendezvous;
  }
  for (const char* rendezvous : {"127.0.0.1:29500", "localhost:29500", "[::1]:29500"}) {
    WorkerOptions options = two_nodes({}, rendezvous, 1);
    options.group_key.clear();
    EXPECT_EQ(refusal_of(options), "accepted") << rendezvous;
  }
}

// The ranks inherit the variable that the key came from.
TEST(GroupKey, IsNeverOnACommandLine) {
  WorkerOptions options = two_nodes({}, "host-0:29500", 1);
  options.group_key = keys::new_secret_key().text();
  for (const std::string& argument : command_line(options)) {
    EXPECT_THAT(argument, testing::Not(HasSubstr("group-key")));
    EXPECT_THAT(argument, testing::Not(HasSubstr(options.group_key)));
  }
}

TEST(WorkerOptions, LeasesAQuarterAheadUnlessTold) {
  WorkerOptions options;
  options.max_sequences = 64;
  EXPECT_EQ(options.leases_max(), 80);
  options.lease_ahead = 0;
  EXPECT_EQ(options.leases_max(), 64);
  options.max_sequences = 1;
  options.lease_ahead = -1;
  EXPECT_EQ(options.leases_max(), 1);
}

}  // namespace options_test
}  // namespace optserve::worker
