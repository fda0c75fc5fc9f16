// The converter's side against readers that die, hang and lie. This program is such a reader when it is started with
// the arguments of one: what it does is in the name of the input.
#include "converter/reader/caged_model.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/ids.h"
#include "base/sanitized.h"
#include "checkpoint/testing/tiny_config.h"
#include "checkpoint/torch/testing/pt_builder.h"
#include "converter/reader/testing/no_seccomp.h"

namespace optserve::converter {
namespace caged_model_test {

using model_spec::TensorSpec;

ModelSummary small_summary(const std::string& name) {
  ModelSummary summary;
  summary.kind = "metaseq";
  summary.layout = "1 file";
  summary.files = {{"x.pt", 1, ""}};
  model_spec::OptConfig config = checkpoint::testing::tiny_config(
      {.num_layers = 1, .hidden = 8, .num_heads = 2, .ffn = 16, .vocab = 12, .max_positions = 4});
  config.name = name;
  summary.config = config;
  summary.natural_dtype = DType::kF16;
  summary.dtypes.assign(model_spec::opt_tensors(config).size(), DType::kF16);
  return summary;
}

// A reader that answers correctly except for one thing.
class Liar {
 public:
  Liar(ReadJob job, std::span<std::byte> window) : job_(std::move(job)), window_(window) {}

  int run() {
    for (Request request; read(kChannelFd, &request, sizeof request) == sizeof request;) {
      misbehave(request);
      if (const Reply reply = answer(request); write(kChannelFd, &reply, sizeof reply) != sizeof reply) return 1;
    }
    return 0;
  }

 private:
  bool does(const char* what) const { return job_.input == what; }

  void misbehave(const Request& request) const {
    if (does("dies")) _exit(3);
    if (does("is-killed")) kill(getpid(), SIGKILL);
    if (does("crashes")) raise(SIGSEGV);
    if (does("says-why")) {
      [[maybe_unused]] const auto ignored = write(STDERR_FILENO, "bad\x1bthing", 9);
      raise(SIGABRT);
    }
    if (does("is-caught")) raise(SIGSYS);
    if (does("hangs")) pause();
    if (does("dies-later") && request.question == Question::kReadRows) _exit(3);
    if (does("closes")) {
      close(kChannelFd);
      pause();
    }
    if (does("speaks-too-short")) {
      [[maybe_unused]] const auto ignored = write(kChannelFd, "x", 1);
    }
    if (does("speaks-too-long")) {
      const std::string text(1 << 10, 'x');
      [[maybe_unused]] const auto ignored = write(kChannelFd, text.data(), text.size());
    }
    // The window is sealed: a reader that shrinks it would end the converter by SIGBUS.
    if (does("shrinks")) _exit(ftruncate(kWindowFd, 0) == 0 ? 3 : 4);
  }

  Reply text(Answer answer, uint32_t code, const std::string& message) {
    std::memcpy(window_.data(), message.data(), message.size());
    return {answer, code, 0, message.size()};
  }

  Reply answer(const Request& request) {
    if (does("claims-too-much")) return {Answer::kDone, 0, 0, UINT64_MAX};
    if (does("invents-answers")) return {static_cast<Answer>(9), 0, 0, 0};
    if (does("invents-codes")) return {Answer::kRefusal, 99, 0, 0};
    if (does("talks-forever")) return {Answer::kRefusal, 1, 0, kWindowBytes};
    if (does("refuses")) return text(Answer::kRefusal, 9, "no\x1b good");
    if (does("fails")) return text(Answer::kError, 0, "disk on fire");
    if (does("says-anything")) return {Answer::kDone, 0, 0, 1000};
    if (request.question == Question::kReadRows) return rows(request);
    if (request.question == Question::kFindTokenizer) return tokenizer();
    if (request.question != Question::kOpen) return {};
    ModelSummary summary = small_summary(does("renames") ? "other" : job_.name);
    if (does("has-problem")) summary.problem = "none";
    return text(Answer::kDone, 0, encode_summary(summary, kWindowBytes).value());
  }

  Reply rows(const Request& request) const {
    const TensorSpec spec = model_spec::opt_tensors(*small_summary("x").config).at(request.tensor);
    const auto bytes = static_cast<uint64_t>(request.count * spec.cols * 2);
    for (uint64_t i = 0; i < bytes; ++i) {  // each row's number
      window_[request.half * kHalfBytes + i] =
          static_cast<std::byte>(request.begin + static_cast<int64_t>(i) / (2 * spec.cols));
    }
    return {Answer::kDone, 0, 0, bytes + (does("cuts-rows") ? 1 : 0)};
  }

  Reply tokenizer() {
    TokenizerFiles files;
    files.tokens = does("many-tokens") ? int64_t{1} << 40 : 3;
    std::string encoded = encode_tokenizer(files);  // the sizes of the three texts stand last
    const uint64_t bytes = does("huge-tokenizer") ? uint64_t{1} << 40 : 0;
    std::memcpy(encoded.data() + encoded.size() - 3 * sizeof bytes, &bytes, sizeof bytes);
    Reply reply = text(Answer::kDone, 0, encoded);
    reply.number = 1;
    return reply;
  }

  ReadJob job_;
  std::span<std::byte> window_;
};

Result<CagedModel> open_liar(const std::string& input, int64_t answer_seconds = 60) {
  ReaderSettings settings;
  settings.answer_seconds = answer_seconds;
  settings.program = std::filesystem::read_symlink("/proc/self/exe").string();
  return CagedModel::open({.input = input, .name = "m"}, settings);
}

// The refusal, or the Error.
std::string fault(const std::string& input, int64_t answer_seconds = 60) {
  try {
    const Result<CagedModel> source = open_liar(input, answer_seconds);
    return source.ok() ? "accepted" : "refused: " + source.refusal().message;
  } catch (const Error& error) {
    return std::string("error: ") + error.what();
  }
}

void expect_fault(const std::string& input, const std::string& expected) {
  const std::string found = fault(input);
  EXPECT_NE(found.find(expected), std::string::npos) << input << ": " << found;
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << input << ": a process is left";
}

TEST(CagedModel, TakesTheWordOfAGoodReader) {
  const Result<CagedModel> source = open_liar("good");
  ASSERT_TRUE(source.ok()) << source.refusal().message;
  const TensorSpec spec = model_spec::opt_tensors(source.value().config()).front();
  std::vector<std::byte> rows(static_cast<size_t>(3 * spec.cols * 2));
  for (const int64_t row : {0, 9, 2, 5}) {
    source.value().read_rows(spec, row, 3, rows);
    EXPECT_EQ(rows.front(), static_cast<std::byte>(row));
    EXPECT_EQ(rows.back(), static_cast<std::byte>(row + 2));
  }
}

TEST(CagedModel, SaysHowAReaderEnded) {
  expect_fault("dies", "error: the checkpoint reader ended with status 3");
  expect_fault("is-killed", "error: the checkpoint reader was killed by signal 9");
  expect_fault("crashes", kSanitizedBuild ? "the checkpoint reader" : "crashed while it read the files (signal 11)");
  expect_fault("is-caught", "its sandbox ended it");
  expect_fault("says-why", "it said: bad?thing");
  expect_fault("closes", "error: the checkpoint reader was killed by signal 9");
}

TEST(CagedModel, EndsAReaderThatHangs) {
  EXPECT_NE(fault("hangs", 1).find("gave no answer for 1 s and was ended"), std::string::npos);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
}

TEST(CagedModel, RefusesNonsense) {
  expect_fault("speaks-too-short", "refused: the checkpoint reader gave an invalid answer: a message of 1 bytes");
  expect_fault("speaks-too-long", "gave an invalid answer: a message of 1024 bytes");
  expect_fault("claims-too-much", "more bytes than the window holds");
  expect_fault("invents-answers", "an unknown kind of answer");
  expect_fault("invents-codes", "an unknown class of refusal");
  expect_fault("talks-forever", "a text that is too long");
  expect_fault("says-anything", "gave an invalid answer");
  expect_fault("renames", "a model with another name");
  expect_fault("has-problem", "neither a model nor a refusal");
  expect_fault("shrinks", "ended with status 4");
}

TEST(CagedModel, PassesReasonsOn) {
  expect_fault("refuses", "refused: no? good");
  expect_fault("fails", "error: disk on fire");
}

TEST(CagedModel, ChecksRowsAndTokenizers) {
  const Result<CagedModel> cutter = open_liar("cuts-rows");
  const TensorSpec spec = model_spec::opt_tensors(cutter.value().config()).front();
  std::vector<std::byte> row(static_cast<size_t>(spec.cols * 2));
  EXPECT_THROW(cutter.value().read_rows(spec, 0, 1, row), Error);
  const Result<CagedModel> dying = open_liar("dies-later");
  EXPECT_THROW(dying.value().read_rows(spec, 0, 1, row), Error);
  for (const auto& [input, fault] :
       {std::pair{"huge-tokenizer", "a vocabulary that is too large"}, {"many-tokens", "number of tokens"}}) {
    const std::string message = open_liar(input).value().tokenizer().refusal().message;
    EXPECT_NE(message.find(fault), std::string::npos) << message;
  }
}

TEST(CagedModel, DoesNotStartWithoutItsProgram) {
  ReaderSettings settings;
  settings.program = "/nonexistent/reader";
  EXPECT_THROW((void)CagedModel::open({.input = "x", .name = "m"}, settings), Error);
}

// The real reader on a system without seccomp: `require` reads nothing, `try` says what is missing, `off` is silent.
TEST(Sandbox, ModeDecidesWhereTheSystemLacksIt) {
  const auto folder = std::filesystem::temp_directory_path() / ("optserve-sandbox-test-" + Id128::random().hex());
  std::filesystem::create_directory(folder);
  checkpoint::testing::PtBuilder builder;
  builder.add_tensor("decoder.version", DType::kF32, {1}, "abcd");
  std::ofstream(folder / "x.pt", std::ios::binary) << builder.file();
  const auto warnings = [&](SandboxMode mode) -> std::string {
    try {
      const auto source = CagedModel::open({.input = folder.string(), .name = "m", .for_inspection = true}, {mode});
      if (!source.ok()) return "refused: " + source.refusal().message;
      return source.value().summary().warnings.empty() ? "none" : source.value().summary().warnings[0];
    } catch (const Error& error) {
      return error.what();
    }
  };
  for (const SandboxMode mode : {SandboxMode::kRequire, SandboxMode::kTry, SandboxMode::kOff}) {
    EXPECT_EQ(warnings(mode), "none");
  }
  const pid_t child = fork();
  if (child == 0) {
    const bool as_expected =
        testing::forbid_seccomp() &&
        warnings(SandboxMode::kRequire).find("required, but this system cannot provide it: seccomp") < 200 &&
        warnings(SandboxMode::kTry).find("not complete on this system (seccomp") < 200 &&
        warnings(SandboxMode::kOff) == "none";
    _exit(as_expected ? 0 : 1);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  std::filesystem::remove_all(folder);
}

TEST(ReadJob, RoundTrips) {
  const ReadJob job{"/a b/*.pt", "opt", 12, conversion::OutputHead::kOwn, "v", "m", conversion::PromptTokens::kAdded,
                    true};
  const std::vector<std::string> texts = to_arguments(job);
  std::vector<const char*> arguments;
  for (const std::string& text : texts) arguments.push_back(text.c_str());
  const auto found = parse_read_job(arguments);
  ASSERT_TRUE(found);
  EXPECT_EQ(to_arguments(*found), texts);
  arguments.pop_back();
  EXPECT_FALSE(parse_read_job(arguments));
}

}  // namespace caged_model_test

// True if this process was started as a reader; then it has been one.
bool was_liar(int argc, char** argv, int& status) {
  const std::span<const char* const> arguments(argv, static_cast<size_t>(argc));
  const auto job = argc > 3 ? parse_read_job(arguments.subspan(3)) : std::nullopt;
  if (!job) return false;
  void* window = mmap(nullptr, kWindowBytes, PROT_READ | PROT_WRITE, MAP_SHARED, kWindowFd, 0);
  status = caged_model_test::Liar(*job, {static_cast<std::byte*>(window), kWindowBytes}).run();
  return true;
}

}  // namespace optserve::converter

int main(int argc, char** argv) {
  int status = 0;
  if (optserve::converter::was_liar(argc, argv, status)) return status;
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
