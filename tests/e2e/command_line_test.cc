// What `optserve` says to wrong, odd and unanswerable command lines, and with which exit status.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <chrono>
#include <fstream>

#include "cli/stack/free_ports.h"
#include "cli/stack/process_identity.h"
#include "cli/stack/stack_folder.h"
#include "support/processes.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace command_line_test {

using ::testing::HasSubstr;

ProgramOutput optserve(const std::vector<std::string>& arguments, const std::string& input = {}) {
  return run_program("optserve", arguments, input);
}

// Nobody listens here.
std::vector<std::string> with_dead_scheduler(std::vector<std::string> arguments) {
  const std::string port = std::to_string(cli::find_free_ports(1).front());
  arguments.insert(arguments.end(), {"--scheduler", "tcp://127.0.0.1:" + port, "--timeout-ms", "100"});
  return arguments;
}

TEST(CommandLine, HelpAndVersionSucceedOnStandardOutput) {
  for (const char* flag : {"--help", "--version"}) {
    const ProgramOutput ran = optserve({flag});
    EXPECT_EQ(ran.status, 0) << flag;
    EXPECT_THAT(ran.out, HasSubstr("optserve")) << flag;
  }
  const std::string help = optserve({"--help"}).out;
  for (const char* command :
       {"generate", "prompt", "submit", "result", "cancel", "status", "jobs", "queue", "journal", "top", "doctor",
        "preflight", "up", "down", "convert", "export", "inspect", "calibrate", "bench"}) {
    EXPECT_THAT(help, HasSubstr(command));
  }
}

TEST(CommandLine, WrongUsageIsStatusTwoAndNamesWhatIsWrong) {
  EXPECT_EQ(optserve({}).status, 2);
  EXPECT_EQ(optserve({"frobnicate"}).status, 2);
  EXPECT_EQ(optserve({"status", "--frobnicate"}).status, 2);
  EXPECT_EQ(optserve({"generate", "--top-k", "many", "text"}).status, 2);
  EXPECT_EQ(optserve({"result"}).status, 2);
  for (const auto& arguments :
       std::vector<std::vector<std::string>>{{"jobs"},
                                             {"jobs", "show", "12"},
                                             {"jobs", "list", "--state", "frobnicated"},
                                             {"jobs", "list", "--limit", "0"},
                                             {"jobs", "purge"},
                                             {"queue", "hold"},
                                             {"queue", "pause", "--model", "a", "--service", "b"},
                                             {"journal"}}) {
    EXPECT_EQ(optserve(arguments).status, 2) << arguments.back();
  }
  const ProgramOutput twice = optserve({"generate", "text", "--prompt", "text"});
  EXPECT_EQ(twice.status, 2);
  EXPECT_THAT(twice.err, HasSubstr("more than once"));
  const ProgramOutput id = optserve({"cancel", "12"});
  EXPECT_EQ(id.status, 2);
  EXPECT_THAT(id.err, HasSubstr("job is '12', expected 32 lower-case hex digits"));
  EXPECT_EQ(optserve({"result"}).status, 2);
  EXPECT_EQ(optserve({"result", std::string(32, 'a'), "--key", "k"}).status, 2);
}

TEST(CommandLine, UnknownWordsAreNamedWithTheNearestOnes) {
  EXPECT_THAT(optserve({"generat", "x"}).err, HasSubstr("unknown command 'generat'; did you mean 'generate'?"));
  EXPECT_THAT(optserve({"ps"}).err, HasSubstr("did you mean 'status'?"));
  EXPECT_THAT(optserve({"list"}).err, HasSubstr("did you mean 'jobs list'?"));
  EXPECT_THAT(optserve({"serve"}).err, HasSubstr("did you mean 'up'?"));
  EXPECT_THAT(optserve({"generate", "--temprature", "0.5", "x"}).err,
              HasSubstr("unknown option --temprature; did you mean --temperature?"));
  EXPECT_THAT(optserve({"convert", "part-0.pt", "part-1.pt", "out"}).err,
              HasSubstr("unexpected argument 'out': the arguments are source, destination; quote patterns"));
}

// What needs no scheduler is refused before one is looked for.
TEST(CommandLine, ValuesAreCheckedBeforeASchedulerIsAsked) {
  const ProgramOutput ran = optserve({"generate", "x", "--temperature", "5", "--scheduler", "tcp://127.0.0.1:9"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("temperature is 5"));
  EXPECT_THAT(optserve({"generate", "x", "--n", "0"}).err, HasSubstr("n is 0"));
  EXPECT_THAT(optserve({"batch", "/nowhere.jsonl", "out.jsonl"}).err, HasSubstr("/nowhere.jsonl"));
}

// Where nobody listens, and where there is no such name: by the same rule, which does not wait for the timeout.
TEST(CommandLine, WhatCannotAnswerIsReportedSoon) {
  const std::string port = std::to_string(cli::find_free_ports(1).front());
  const auto begun = std::chrono::steady_clock::now();
  for (const auto& [address, why] :
       {std::pair{"tcp://127.0.0.1:" + port, port + ": connection refused"},
        std::pair{std::string("tcp://no-such-host.invalid:5555"), std::string("'no-such-host.invalid' cannot be")}}) {
    for (const std::vector<std::string>& command : {std::vector<std::string>{"status"}, {"generate", "text"}}) {
      std::vector<std::string> arguments = command;
      arguments.insert(arguments.end(), {"--scheduler", address, "--timeout-ms", "600000", "--insecure"});
      const ProgramOutput ran = optserve(arguments);
      EXPECT_EQ(ran.status, 3) << ran.err;
      EXPECT_THAT(ran.err, HasSubstr(why));
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(120));
}

TEST(CommandLine, AnAddressOfTheWrongFormIsUsage) {
  for (const char* address :
       {"nonsense", "tcp://127.0.0.1", "tcp://:5555", "tcp://127.0.0.1:0", "tcp://127.0.0.1:99999",
        "http://127.0.0.1:8000", "tcp://127.0.0.1:5555|b:5555", "tcp://127.0.0.1:5555,"}) {
    const ProgramOutput ran = optserve({"status", "--scheduler", address});
    EXPECT_EQ(ran.status, 2) << address << ": " << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("expected")) << address;
  }
  EXPECT_THAT(optserve({"status", "--json", "--scheduler", "http://h:1"}).out,
              HasSubstr("that of a gateway does not do"));
}

// A peer that accepts connections and sends nothing, such as a wrong port, costs the whole timeout; people are told
// what is waited for.
TEST(CommandLine, SilenceIsWaitedForWithAWord) {
  const int port = cli::find_free_ports(1).front();
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener, 64), 0);
  const std::string endpoint = "tcp://127.0.0.1:" + std::to_string(port);
  const ProgramOutput ran = optserve({"status", "--json", "--scheduler", endpoint, "--timeout-ms", "5000"});
  close(listener);
  EXPECT_EQ(ran.status, 3);
  EXPECT_THAT(ran.err, HasSubstr("optserve: waiting for an answer from " + endpoint + ", for 5 s in all\n"));
  EXPECT_THAT(ran.out, HasSubstr("something accepts connections there"));
}

TEST(CommandLine, ErrorsAreJsonWithJson) {
  const ProgramOutput unreachable = optserve(with_dead_scheduler({"status", "--json"}));
  EXPECT_EQ(unreachable.status, 3);
  EXPECT_THAT(unreachable.out, HasSubstr(R"({"error":{"code":"unavailable","message":"no scheduler answers)"));
  EXPECT_EQ(unreachable.err, "");
  const ProgramOutput missing = optserve({"inspect", "--json", "/nowhere"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_THAT(missing.out, HasSubstr(R"({"error":{"code":"bad_request","exit_status":1,"message":"/nowhere: no such)"));
  EXPECT_EQ(missing.err, "");
  const ProgramOutput usage = optserve({"jobs", "list", "--json", "--limit", "x"});
  EXPECT_EQ(usage.status, 2);
  EXPECT_THAT(usage.out, HasSubstr(R"("code":"bad_request")"));
}

TEST(CommandLine, VariablesDoNotChangeWhatCommandsDo) {
  setenv("OPTSERVE_TEMPERATURE", "5", 1);
  const ProgramOutput ran = optserve(with_dead_scheduler({"generate", "x"}));
  unsetenv("OPTSERVE_TEMPERATURE");
  EXPECT_EQ(ran.status, 3) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("warning: variable OPTSERVE_TEMPERATURE is ignored"));
}

TEST(CommandLine, ServicesUseTheSameExitStatuses) {
  const std::vector<std::vector<std::string>> services{{"optserve-scheduler"},
                                                       {"optserve-tokenizer"},
                                                       {"optserve-worker"},
                                                       {"optserve-gateway"},
                                                       {"optserve-converter", "serve"}};
  for (const std::vector<std::string>& words : services) {
    const std::string& program = words.front();
    const auto run = [&](std::vector<std::string> more) {
      more.insert(more.begin(), words.begin() + 1, words.end());
      return run_program(program, more);
    };
    const ProgramOutput unknown = run({"--lgo-level", "info"});
    EXPECT_EQ(unknown.status, 2) << program;
    EXPECT_THAT(unknown.err, HasSubstr(program + ": unknown option --lgo-level; did you mean --log-level?"));
    EXPECT_EQ(run({"--http-port", "70000"}).status, 2) << program;
    EXPECT_EQ(run({"--config", "/nowhere.yaml"}).status, 78) << program;
    std::string prefix = program;
    for (char& c : prefix) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const std::string variable = prefix + "_HTTP_PORT", host = prefix + "_HTTP_SERVICE_HOST";
    setenv(variable.c_str(), "tcp://10.0.0.1:80", 1);
    const ProgramOutput wrong = run({});
    EXPECT_EQ(wrong.status, 78) << program;
    EXPECT_THAT(wrong.err, HasSubstr("(variable " + variable + ")"));
    // With its companion the variable is a service link of Kubernetes, which must not end a pod: here only the invalid
    // log level may end it.
    setenv(host.c_str(), "10.0.0.1", 1);
    EXPECT_THAT(run({"--log-level", "loud"}).err, HasSubstr("the value is 'loud'"));
    EXPECT_THAT(run({"--log-level", "loud"}).err, ::testing::Not(HasSubstr(variable)));
    unsetenv(variable.c_str());
    unsetenv(host.c_str());
  }
  EXPECT_EQ(run_program("optserve-gateway", {"--http", "nowhere"}).status, 78);
  for (const char* program : {"optserve-tokenizer", "optserve-worker"}) {
    const ProgramOutput ran = run_program(program, {"--scheduler", "tcp://localhost", "--model", "a=/nowhere"});
    EXPECT_EQ(ran.status, 78) << program;
    EXPECT_THAT(ran.err, HasSubstr("scheduler is 'tcp://localhost', expected tcp://HOST:PORT")) << program;
  }
  // ZeroMQ would listen at another port.
  const ProgramOutput port =
      run_program("optserve-scheduler", {"--volatile", "--bind-clients", "tcp://127.0.0.1:99999"});
  EXPECT_EQ(port.status, 78);
  EXPECT_THAT(port.err, HasSubstr("bind-clients is 'tcp://127.0.0.1:99999', expected tcp://HOST:PORT"));
  const ProgramOutput no_model = run_program("optserve-tokenizer", {});
  EXPECT_EQ(no_model.status, 78);
  EXPECT_THAT(no_model.err, HasSubstr("stopped cause=\"model: expected at least one --model NAME=FOLDER\""));
}

TEST(CommandLine, NoSchedulerIsStatusThree) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{{"status"},
                                                                     {"generate", "text"},
                                                                     {"submit", "text"},
                                                                     {"result", std::string(32, 'a')},
                                                                     {"cancel", std::string(32, 'a')},
                                                                     {"jobs", "list"},
                                                                     {"jobs", "requeue", std::string(32, 'a')},
                                                                     {"queue", "pause"},
                                                                     {"journal", "backup"},
                                                                     {"convert", "--remote", "a", "b"}}) {
    const ProgramOutput ran = optserve(with_dead_scheduler(arguments));
    EXPECT_EQ(ran.status, 3) << arguments[0] << ": " << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("no scheduler answers at tcp://127.0.0.1:")) << arguments[0];
    EXPECT_EQ(ran.out, "");
  }
}

// In whichever way --remote is given, the conversion is not done on this machine.
TEST(CommandLine, ConvertIsRemoteByFlagAndFile) {
  const TemporaryFolder folder;
  const std::string file = folder / "optserve.yaml";
  std::ofstream(file) << "convert:\n  remote: true\n";
  const auto expect_remote = [](const std::vector<std::string>& arguments, const char* how) {
    const ProgramOutput ran = optserve(with_dead_scheduler(arguments));
    EXPECT_EQ(ran.status, 3) << how << ": " << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("no scheduler answers at tcp://127.0.0.1:")) << how;
  };
  expect_remote({"convert", "--remote", "a", "b"}, "flag");
  expect_remote({"convert", "--remote=true", "a", "b"}, "flag with a value");
  expect_remote({"--config", file, "convert", "a", "b"}, "file");
  setenv("OPTSERVE_CONFIG", file.c_str(), 1);
  expect_remote({"convert", "a", "b"}, "file by environment");
  const ProgramOutput outranked = optserve({"convert", "--no-remote", "/nowhere/checkpoint", folder / "out"});
  EXPECT_EQ(outranked.status, 1);
  EXPECT_THAT(outranked.err, HasSubstr("/nowhere/checkpoint"));
  unsetenv("OPTSERVE_CONFIG");
  expect_remote({"convert", "a", "b", "--config", file}, "file after the command");
  for (const std::vector<std::string>& local : std::vector<std::vector<std::string>>{
           {"convert"}, {"convert", "--remote=false"}, {"--config", folder / "other.yaml", "convert"}}) {
    std::ofstream(folder / "other.yaml") << "generate:\n  top-k: 3\nconvert:\n  remote: false\n";
    std::vector<std::string> arguments = local;
    arguments.insert(arguments.end(), {"/nowhere/checkpoint", folder / "out"});
    const ProgramOutput ran = optserve(arguments);
    EXPECT_EQ(ran.status, 1) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("/nowhere/checkpoint"));
  }
}

TEST(CommandLine, ConvertRefusesOptionsOfTheOtherKind) {
  const ProgramOutput local = optserve({"convert", "a", "b", "--parts", "2"});
  EXPECT_EQ(local.status, 2);
  EXPECT_THAT(local.err, HasSubstr("parts: only a conversion with --remote has this option"));
  const ProgramOutput remote = optserve(with_dead_scheduler({"convert", "--remote", "a", "b", "--heads", "2"}));
  EXPECT_EQ(remote.status, 2);
  EXPECT_THAT(remote.err, HasSubstr("heads: a conversion with --remote does not have this option"));
}

TEST(CommandLine, HelpOfTheConverterCommandsIsComplete) {
  const std::string convert = optserve({"convert", "--help-all"}).out;
  for (const char* option : {"--remote", "--parts", "--scheduler", "--heads", "--smooth", "--sandbox"}) {
    EXPECT_THAT(convert, HasSubstr(option));
  }
  EXPECT_THAT(optserve({"export", "--help"}).out, HasSubstr("--file-mb-max"));
  EXPECT_THAT(optserve({"inspect", "--help"}).out, HasSubstr("--tensors"));
  EXPECT_THAT(optserve({"calibrate", "--help"}).out, HasSubstr("--text"));
}

TEST(CommandLine, FilesThatCannotBeReadAreNamed) {
  const ProgramOutput prompt = optserve({"generate", "--prompt-file", "/nowhere/prompt"});
  EXPECT_EQ(prompt.status, 1);
  EXPECT_THAT(prompt.err, HasSubstr("/nowhere/prompt"));
  const ProgramOutput stack = optserve({"status", "--dir", "/nowhere"});
  EXPECT_EQ(stack.status, 1);
  EXPECT_THAT(stack.err, HasSubstr("no stack was started in this folder"));
  const ProgramOutput inspected = optserve({"inspect", "/nowhere/checkpoint"});  // runs optserve-converter
  EXPECT_EQ(inspected.status, 1);
  EXPECT_THAT(inspected.err, HasSubstr("/nowhere/checkpoint"));
  const ProgramOutput converted = optserve({"convert", "/nowhere/checkpoint", "/nowhere/out"});
  EXPECT_EQ(converted.status, 1);
  const ProgramOutput exported = optserve({"export", "/nowhere/checkpoint", "/nowhere/out", "--format", "metaseq"});
  EXPECT_EQ(exported.status, 1);
  EXPECT_THAT(exported.err, HasSubstr("/nowhere/checkpoint"));
}

TEST(CommandLine, UpRefusesBeforeItStartsAnything) {
  const TemporaryFolder folder;
  const ProgramOutput ran = optserve({"up", "--model", folder.path(), "--dir", folder / "run"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("has no manifest.json"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
}

TEST(CommandLine, DownOfNothingIsDone) {
  const TemporaryFolder folder;
  const ProgramOutput ran = optserve({"down", "--dir", folder.path()});
  EXPECT_EQ(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("no stack is running"));
}

// A pid file that outlived its process must not end whoever has the pid now: here, this test.
TEST(CommandLine, DownDoesNotTouchAProcessThatGotTheSamePid) {
  const TemporaryFolder folder;
  cli::ProcessIdentity other = *cli::identify_process(getpid());
  ++other.start_ticks;
  cli::StackFolder(folder.path()).write_pid(other);
  const ProgramOutput ran = optserve({"down", "--dir", folder.path()});
  EXPECT_EQ(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("had died already"));
  EXPECT_FALSE(cli::StackFolder(folder.path()).read_pid());
}

}  // namespace command_line_test
}  // namespace optserve::test_support
