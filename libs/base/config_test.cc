#include "base/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "base/exit_status.h"
#include "base/format_names.h"
#include "base/nearest_word.h"
#include "support/temporary_folder.h"

namespace optserve {
namespace config_test {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Sets variables as long as it lives.
class Variables {
 public:
  Variables(std::initializer_list<std::pair<std::string, std::string>> values) : values_(values) {
    for (const auto& [name, value] : values_) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Variables() {
    for (const auto& [name, value] : values_) unsetenv(name.c_str());
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;

 private:
  std::vector<std::pair<std::string, std::string>> values_;
};

std::string file_with(const std::string& text) {
  static const test_support::TemporaryFolder folder;
  const std::string path = folder / "config_test.yaml";
  std::ofstream(path) << text;
  return path;
}

struct Parsed {
  int status = 0;
  std::string out, err;
};

Parsed parse(ConfigParser& parser, std::vector<std::string> words) {
  words.insert(words.begin(), "program");
  std::vector<const char*> arguments;
  for (const std::string& word : words) arguments.push_back(word.c_str());
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  Parsed parsed;
  parsed.status = parser.parse(static_cast<int>(arguments.size()), arguments.data());
  parsed.out = testing::internal::GetCapturedStdout();
  parsed.err = testing::internal::GetCapturedStderr();
  return parsed;
}

// A service with options of each type and each kind of check.
struct ServiceRig {
  ServiceRig() {
    parser.use_environment();
    parser.add("count", count, "How many").range(0, 7);
    parser.add("share", share, "How much").above(0, 1);
    parser.add("form", form, "Which form").choices({"text", "json"}).also({"shape"});
    parser.add("types", types, "Which types").choices(kDtypeNames);
    parser.add("peers", peers, "Addresses").separated_by_commas();
    parser.add("quick", quick, "Less care");
    parser.add("loud", loud, "Say everything");
    parser.add("whole", whole, "A whole number");
    parser.add("inner-fd", inner, "Set by the parent").hidden();
  }
  std::string sources() const {
    std::string text;
    for (const ConfigParser::Given& given : parser.given()) {
      text += given.name + "=";
      for (const std::string& value : given.values) text += value + ";";
      text += " " + given.source + "\n";
    }
    return text;
  }

  int count = -5;  // a default is not checked
  double share = 0.5;
  std::string form = "text";
  std::vector<std::string> types, peers;
  bool quick = false, loud = true;
  uint64_t whole = 0;
  int inner = -1;
  ConfigParser parser{"optserve-worker", "text"};
};

TEST(Config, FlagOutranksVariableOutranksFile) {
  const std::string path = file_with("count: 1\nshare: 0.1\nform: json\ntypes: [fp16, bf16]\nwhole: 4\n");
  const Variables variables{{"OPTSERVE_WORKER_COUNT", "2"}, {"OPTSERVE_WORKER_SHARE", "0.2"}};
  ServiceRig rig;
  ASSERT_EQ(parse(rig.parser, {"--config", path, "--count", "3"}).status, -1);
  EXPECT_EQ(rig.count, 3);
  EXPECT_EQ(rig.share, 0.2);
  EXPECT_EQ(rig.form, "json");
  EXPECT_THAT(rig.types, ElementsAre("fp16", "bf16"));
  EXPECT_EQ(rig.sources(), "count=3; command line\nshare=0.2; variable OPTSERVE_WORKER_SHARE\nform=json; " + path +
                               ":3\ntypes=fp16;bf16; " + path + ":4\nwhole=4; " + path + ":5\n");
}

TEST(Config, ListsInVariablesAreSeparatedByCommas) {
  const Variables variables{{"OPTSERVE_WORKER_PEERS", "tcp://a:1,tcp://b:2"}};
  ServiceRig rig;
  ASSERT_EQ(parse(rig.parser, {}).status, -1);
  EXPECT_THAT(rig.peers, ElementsAre("tcp://a:1", "tcp://b:2"));
  ServiceRig flags;
  ASSERT_EQ(parse(flags.parser, {"--peers", "x,y", "--peers=z"}).status, -1);
  EXPECT_THAT(flags.peers, ElementsAre("x", "y", "z"));
}

TEST(Config, TheFileIsNamedByAVariableToo) {
  const Variables variables{{"OPTSERVE_WORKER_CONFIG", file_with("count: 6\n")}};
  ServiceRig rig;
  ASSERT_EQ(parse(rig.parser, {}).status, -1);
  EXPECT_EQ(rig.count, 6);
  EXPECT_THAT(rig.parser.warnings(), IsEmpty());
}

TEST(Config, VariablesThatNobodyReadsAreNamed) {
  const Variables variables{{"OPTSERVE_COUNT", "2"}, {"OPTSERVE_WORKER_COUTN", "2"}, {"OPTSERVE_TOKENIZER_COUNT", "2"}};
  ServiceRig rig;
  ASSERT_EQ(parse(rig.parser, {}).status, -1);
  EXPECT_EQ(rig.count, -5);
  EXPECT_THAT(
      rig.parser.warnings(),
      ::testing::UnorderedElementsAre(
          AllOf(HasSubstr("OPTSERVE_COUNT is ignored"), HasSubstr("did you mean OPTSERVE_WORKER_COUNT?")),
          AllOf(HasSubstr("OPTSERVE_WORKER_COUTN is ignored"), HasSubstr("did you mean OPTSERVE_WORKER_COUNT?"))));
}

TEST(Config, CommandsTakeNoVariables) {
  const Variables variables{{"OPTSERVE_SEED", "5"}};
  bool selected = false;
  int seed = 0;
  ConfigParser parser("optserve", "text");
  parser.add_command("generate", "", selected).add("seed", seed, "");
  ASSERT_EQ(parse(parser, {"generate"}).status, -1);
  EXPECT_EQ(seed, 0);
  EXPECT_THAT(parser.warnings(), ElementsAre(HasSubstr("variable OPTSERVE_SEED is ignored")));
}

// Kubernetes sets these for a Service called optserve-worker-count.
TEST(Config, ServiceLinksOfKubernetesAreNotOptions) {
  const Variables variables{{"OPTSERVE_WORKER_SERVICE_HOST", "10.0.0.1"},
                            {"OPTSERVE_WORKER_SERVICE_PORT", "80"},
                            {"OPTSERVE_WORKER_PORT", "tcp://10.0.0.1:80"},
                            {"OPTSERVE_WORKER_PORT_80_TCP", "tcp://10.0.0.1:80"}};
  int port = 7;
  ConfigParser parser("optserve-worker", "text");
  parser.use_environment();
  parser.add("port", port, "").range(0, 65'535);
  ASSERT_EQ(parse(parser, {}).status, -1);
  EXPECT_EQ(port, 7);
  EXPECT_THAT(parser.warnings(), IsEmpty());
}

TEST(Config, WrongValuesAreNamedWithTheirSource) {
  const auto fault = [](const std::vector<std::string>& words) {
    ServiceRig rig;
    const Parsed parsed = parse(rig.parser, words);
    EXPECT_EQ(parsed.out, "");
    return std::to_string(parsed.status) + " " + parsed.err;
  };
  EXPECT_EQ(fault({"--count", "7", "--share", "1", "--form", "json", "--types", "fp16"}), "-1 ");
  EXPECT_THAT(fault({"--count", "8"}), AllOf(HasSubstr("2 optserve-worker: --count: the value is 8, expected 0 to 7"),
                                             HasSubstr("see 'optserve-worker --help'")));
  EXPECT_THAT(fault({"--count", "many"}), HasSubstr("--count: the value is 'many', expected a whole number"));
  EXPECT_THAT(fault({"--count", "0.5"}), HasSubstr("expected a whole number"));
  EXPECT_THAT(fault({"--share", "0"}), HasSubstr("--share: the value is 0, expected more than 0, at most 1"));
  EXPECT_THAT(fault({"--share", "nan"}), HasSubstr("the value is nan"));
  EXPECT_THAT(fault({"--form", "xml"}), HasSubstr("--form: the value is 'xml', expected text or json"));
  EXPECT_THAT(fault({"--types", "fp16", "--types", "int4"}), HasSubstr("--types: the value is 'int4'"));
  EXPECT_THAT(fault({"--whole", "-1"}), HasSubstr("expected a whole number that is not negative"));
  EXPECT_THAT(fault({"--count"}), HasSubstr("--count needs a value"));
  EXPECT_THAT(fault({"--count", "1", "--count", "2"}), Not(HasSubstr("-1 ")));
  const std::string path = file_with("# a comment\nform: xml\n");
  EXPECT_THAT(fault({"--config", path}), AllOf(HasSubstr("78 "), HasSubstr("(" + path + ":2)")));
  const Variables variables{{"OPTSERVE_WORKER_COUNT", "-1"}};
  EXPECT_THAT(fault({}), AllOf(HasSubstr("78 "), HasSubstr("the value is -1, expected 0 to 7"),
                               HasSubstr("(variable OPTSERVE_WORKER_COUNT)")));
}

TEST(Config, UnknownOptionsAndArgumentsAreNamed) {
  const auto fault = [](const std::vector<std::string>& words) {
    ServiceRig rig;
    const Parsed parsed = parse(rig.parser, words);
    EXPECT_EQ(parsed.status, kExitUsage);
    return parsed.err;
  };
  EXPECT_THAT(fault({"--cuont", "1"}), HasSubstr("unknown option --cuont; did you mean --count?"));
  EXPECT_THAT(fault({"--zebra"}), AllOf(HasSubstr("unknown option --zebra"), Not(HasSubstr("did you mean"))));
  EXPECT_THAT(fault({"--inner", "1"}), Not(HasSubstr("did you mean")));  // it is hidden
  EXPECT_THAT(fault({"-c"}), HasSubstr("unknown option -c"));
  EXPECT_THAT(fault({"--no-count"}), HasSubstr("unknown option --no-count"));
  EXPECT_THAT(fault({"a.pt"}), HasSubstr("unexpected argument 'a.pt': the command takes options only"));
}

TEST(Config, OptionsHaveOtherNamesAndUnderscores) {
  ServiceRig rig;
  ASSERT_EQ(parse(rig.parser, {"--shape=json", "--no_loud", "--quick", "--inner_fd", "-3"}).status, -1);
  EXPECT_EQ(rig.form, "json");
  EXPECT_FALSE(rig.loud);
  EXPECT_TRUE(rig.quick);
  EXPECT_EQ(rig.inner, -3);
}

// optserve with two commands, one of which has commands of its own.
struct CommandRig {
  CommandRig() {
    ConfigParser& run = parser.add_command("run", "Runs it", is_run);
    run.add_positional("what", what, "What to run", true);
    run.add_positional("where", where, "Where", false);
    run.add("quick", quick, "");
    run.add("json", json, "");
    run.add("list", list, "");
    run_parser = &run;
    ConfigParser& jobs = parser.add_command("jobs", "Looks after jobs", is_jobs);
    ConfigParser& show = jobs.add_command("show", "Shows one", is_show);
    show.add("limit", limit, "");
    parser.add_hint("ps", "jobs show");
  }
  bool is_run = false, is_jobs = false, is_show = false, quick = false, json = false;
  std::string what, where;
  std::vector<std::string> list;
  int limit = 1;
  ConfigParser parser{"optserve", "text"};
  ConfigParser* run_parser = nullptr;
};

TEST(Config, UnknownCommandsAreNamed) {
  const auto fault = [](const std::vector<std::string>& words) {
    CommandRig rig;
    const Parsed parsed = parse(rig.parser, words);
    EXPECT_EQ(parsed.status, kExitUsage);
    return parsed.err;
  };
  EXPECT_THAT(fault({"rnu", "x"}), HasSubstr("unknown command 'rnu'; did you mean 'run'?"));
  EXPECT_THAT(fault({"ps"}), HasSubstr("unknown command 'ps'; did you mean 'jobs show'?"));
  EXPECT_THAT(fault({"frobnicate"}), HasSubstr("unknown command 'frobnicate', expected one of run, jobs"));
  EXPECT_THAT(fault({"jobs", "shwo"}), HasSubstr("did you mean 'show'? See 'optserve jobs --help'"));
  EXPECT_THAT(fault({}), HasSubstr("expected a command: run, jobs"));
  EXPECT_THAT(fault({"--quick", "run"}), HasSubstr("options stand after their command"));
  EXPECT_THAT(fault({"run", "a", "b", "c"}), HasSubstr("unexpected argument 'c': the arguments are what, where"));
  EXPECT_THAT(fault({"run"}), HasSubstr("what is required"));
}

TEST(Config, ErrorsAreJsonWithJson) {
  CommandRig rig;
  const Parsed parsed = parse(rig.parser, {"run", "x", "--json", "--qiuck"});
  EXPECT_EQ(parsed.status, kExitUsage);
  EXPECT_THAT(parsed.out, AllOf(HasSubstr(R"({"error":{"code":"bad_request","message":"unknown option --qiuck)"),
                                HasSubstr(R"("exit_status":2}})")));
  EXPECT_EQ(parsed.err, "");
}

TEST(Config, AListTakesOneValueAtATime) {
  CommandRig rig;
  ASSERT_EQ(parse(rig.parser, {"run", "--list", "a", "text", "--list", "b"}).status, -1);
  EXPECT_THAT(rig.list, ElementsAre("a", "b"));
  EXPECT_EQ(rig.what, "text");
  CommandRig dashes;
  ASSERT_EQ(parse(dashes.parser, {"run", "--", "--quick"}).status, -1);
  EXPECT_EQ(dashes.what, "--quick");
  CommandRig empty;
  ASSERT_EQ(parse(empty.parser, {"run", "--list=", "x"}).status, -1);
  EXPECT_THAT(empty.list, ElementsAre(""));
}

TEST(Config, AFileHasSectionsForCommands) {
  const std::string path = file_with("limit: 2\nrun:\n  what: x y\n  quick: true\njobs:\n  show: {limit: 3}\n");
  CommandRig run;
  ASSERT_EQ(parse(run.parser, {"run", "--config", path}).status, -1);
  EXPECT_TRUE(run.is_run);
  EXPECT_EQ(run.what, "x y");
  EXPECT_TRUE(run.quick);
  CommandRig given;
  ASSERT_EQ(parse(given.parser, {"--config", path, "run", "z"}).status, -1);
  EXPECT_EQ(given.what, "z");
  CommandRig show;
  ASSERT_EQ(parse(show.parser, {"jobs", "show", "--config=" + path}).status, -1);
  EXPECT_EQ(show.limit, 3);
}

TEST(Config, WrongFilesAreNamedWithTheLine) {
  const auto fault = [](const std::string& text) {
    CommandRig rig;
    const Parsed parsed = parse(rig.parser, {"run", "x", "--config", file_with(text)});
    EXPECT_EQ(parsed.status, kExitConfiguration) << text;
    return parsed.err;
  };
  EXPECT_THAT(fault("run:\n  qiuck: true\n"),
              HasSubstr("yaml:2: unknown option 'qiuck' of optserve run; did you mean 'quick'?"));
  EXPECT_THAT(fault("rnu:\n  quick: true\n"), HasSubstr("did you mean 'run'?"));
  EXPECT_THAT(fault("jobs: {show: {limits: 4}}\n"), HasSubstr("unknown option 'limits' of optserve jobs show"));
  EXPECT_THAT(fault("run: {quick: [a, b]}\n"), HasSubstr("quick: expected one value, found a list"));
  EXPECT_THAT(fault("- a\n"), HasSubstr("expected 'option: value' lines"));
  EXPECT_THAT(fault("run: {\n"), HasSubstr("not YAML"));
  CommandRig absent;
  EXPECT_THAT(parse(absent.parser, {"run", "x", "--config", "/nowhere.yaml"}).err, HasSubstr("/nowhere.yaml"));
}

TEST(Config, WhatWasGivenSetsTheSameInAnotherProgram) {
  const std::string path = file_with("run:\n  quick: true\n");
  CommandRig rig;
  ASSERT_EQ(parse(rig.parser, {"--config", path, "run", "x", "--list", "a b", "--list", "c"}).status, -1);
  std::string text;
  for (const ConfigParser::Given& given : rig.run_parser->given()) {
    text += (given.is_positional ? "positional " : "") + given.name;
    for (const std::string& value : given.values) text += " [" + value + "]";
    text += "\n";
  }
  EXPECT_EQ(text, "positional what [x]\nquick [true]\nlist [a b] [c]\n");
}

TEST(Config, HelpHasGroupsExamplesAndWhatIsAccepted) {
  ServiceRig rig;
  rig.parser.begin_group("Rarely needed");
  int rare = 9;
  rig.parser.add("rare", rare, "A rare number");
  rig.parser.add_example("optserve-worker --count 3", "count to three");
  const Parsed parsed = parse(rig.parser, {"--help"});
  EXPECT_EQ(parsed.status, kExitOk);
  for (const char* expected :
       {"[0 to 7; default -5]", "more than 0, at most 1", "text, json", "also --shape", "fp32, fp16, bf16", "--no-loud",
        "\nRarely needed:\n  --rare VALUE", "\nExamples:\n  # count to three\n  optserve-worker --count 3\n"}) {
    EXPECT_THAT(parsed.out, HasSubstr(expected));
  }
  EXPECT_THAT(parsed.out, Not(HasSubstr("inner-fd")));
  EXPECT_THAT(parse(rig.parser, {"--help=rarely"}).out, AllOf(HasSubstr("--rare"), Not(HasSubstr("--count"))));
}

TEST(Config, RareOptionsAreInTheHelpOfAllAndFound) {
  CommandRig rig;
  int weight = 3;
  rig.run_parser->add("weight", weight, "How heavy it is").range(0, 9);
  rig.run_parser->mark_rare({"weight"});
  EXPECT_THAT(parse(rig.parser, {"run", "--help"}).out,
              AllOf(HasSubstr("--quick"), Not(HasSubstr("--weight")), HasSubstr("1 more option")));
  EXPECT_THAT(parse(rig.parser, {"run", "--help-all"}).out,
              AllOf(HasSubstr("--quick"), HasSubstr("--weight"), Not(HasSubstr("more option"))));
  EXPECT_THAT(parse(rig.parser, {"run", "--help=heavy"}).out, HasSubstr("--weight"));
  EXPECT_EQ(parse(rig.parser, {"run", "x", "--weight", "4"}).status, -1);
  EXPECT_EQ(weight, 4);
}

TEST(Config, AManualPageHasEveryOptionAsItIsWritten) {
  CommandRig rig;
  int weight = 3;
  rig.run_parser->add("weight", weight, ".5 or 'more\\'").range(0, 9);
  rig.run_parser->mark_rare({"weight"});
  std::string inner;
  rig.run_parser->add("inner-fd", inner, "").hidden();
  rig.run_parser->add_example("optserve run 'a b'", "run it");
  const std::string page = parse(rig.parser, {"run", "--manual"}).out;
  for (const char* expected :
       {".TH OPTSERVE\\-RUN 1 ", ".SH NAME\noptserve\\-run \\- runs it\n", ".B optserve run [options] what [where]\n",
        ".B \\-\\-weight VALUE\n\\&.5 or 'more\\e' [0 to 9; default 3]\n", "run it:\n", "\noptserve run 'a b'\n",
        ".BR optserve (1)\n"}) {
    EXPECT_THAT(page, HasSubstr(expected));
  }
  EXPECT_THAT(page, Not(HasSubstr("inner")));
  EXPECT_THAT(parse(rig.parser, {"--manual"}).out, HasSubstr(".BR optserve\\-jobs (1)\nLooks after jobs\n"));
}

TEST(Config, CompletionKnowsCommandsOptionsAndTheirWords) {
  std::string colour = "red";
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    CommandRig rig;
    rig.run_parser->add("colour", colour, "Its colour; it's free").choices({"red", "blue"});
    const std::string script = parse(rig.parser, {"--completion=" + shell}).out;
    for (const char* expected : {"optserve jobs show", "run", "quick", "colour", "red", "blue", "complet"}) {
      EXPECT_THAT(script, HasSubstr(expected)) << shell;
    }
  }
  CommandRig rig;
  EXPECT_THAT(parse(rig.parser, {"--completion=tcsh"}).err, HasSubstr("'tcsh', expected bash, zsh or fish"));
  EXPECT_EQ(parse(rig.parser, {"run", "--completion=bash"}).status, kExitUsage);
}

TEST(Config, HelpAndVersionAreWordsToo) {
  CommandRig rig;
  const Parsed help = parse(rig.parser, {"help", "run"});
  EXPECT_EQ(help.status, kExitOk);
  EXPECT_THAT(help.out, HasSubstr("Usage: optserve run [options] what [where]"));
  EXPECT_THAT(parse(rig.parser, {"version"}).out, HasSubstr("optserve "));
  EXPECT_THAT(parse(rig.parser, {"--help"}).out, AllOf(HasSubstr("Runs it"), HasSubstr("Looks after jobs")));
}

TEST(NearestWord, FindsWhatWasMeant) {
  const std::vector<std::string> words{"generate", "submit", "status", "max-new-tokens", "up"};
  EXPECT_EQ(nearest_word("generat", words), "generate");
  EXPECT_EQ(nearest_word("gnerate", words), "generate");
  EXPECT_EQ(nearest_word("sttaus", words), "status");
  EXPECT_EQ(nearest_word("gen", words), "generate");  // its beginning
  EXPECT_EQ(nearest_word("max_new_tokens", words), "max-new-tokens");
  EXPECT_EQ(nearest_word("pu", words), "up");
  EXPECT_EQ(nearest_word("s", words), "");
  EXPECT_EQ(nearest_word("zebra", words), "");
}

TEST(ConfigParser, SetsOptionsWhileTheProgramRuns) {
  int threads = 3;
  bool is_loud = false;
  std::vector<std::string> words;
  ConfigParser parser("program", "");
  parser.add("threads-max", threads, "").range(0, 8).also({"workers"});
  parser.add("loud", is_loud, "");
  parser.add("word", words, "");
  EXPECT_TRUE(parser.set("threads_max", {"5"}).ok());
  EXPECT_TRUE(parser.set("loud", {"on"}).ok());
  EXPECT_TRUE(parser.set("word", {"a", "b,c"}).ok());
  EXPECT_EQ(threads, 5);
  EXPECT_TRUE(is_loud);
  EXPECT_THAT(words, ElementsAre("a", "b,c"));
  EXPECT_THAT(parser.set("threads-max", {"9"}).refusal().message, HasSubstr("threads-max: the value is 9"));
  EXPECT_THAT(parser.set("threads-max", {"x"}).refusal().message, HasSubstr("expected a whole number"));
  EXPECT_THAT(parser.set("threads-max", {"1", "2"}).refusal().message, HasSubstr("expected one value"));
  EXPECT_FALSE(parser.set("loud", {"maybe"}).ok());
  EXPECT_THAT(parser.set("thread-max", {"1"}).refusal().message, HasSubstr("did you mean 'threads-max'?"));
  EXPECT_EQ(threads, 5);
  EXPECT_TRUE(parser.set("workers", {"6"}).ok());
  EXPECT_EQ(threads, 6);
  for (const char* name : {"threads-max", "loud", "word"}) EXPECT_TRUE(parser.set(name, {}).ok());
  EXPECT_EQ(threads, 3);
  EXPECT_FALSE(is_loud);
  EXPECT_TRUE(words.empty());
}

TEST(Config, LogsDoNotShowUnloggedValues) {
  std::string lines = "kept";
  ConfigParser parser("program", "Does it");
  parser.add("lines", lines, "Lines").unlogged();
  ASSERT_EQ(parse(parser, {"--lines", "planted"}).status, -1);
  EXPECT_EQ(lines, "planted");
  testing::internal::CaptureStderr();
  CommonOptions options;
  options.log_level = "debug";
  start_logging("test", options, parser);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, AllOf(HasSubstr("lines=(not shown)"), Not(HasSubstr("planted"))));
}

}  // namespace config_test
}  // namespace optserve
