#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "base/ids.h"
#include "base/time_left.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/commands/followed_job.h"
#include "cli/text/result_text.h"

namespace optserve::cli {
namespace {

// Without --remote, commands.cc hands the whole command line to optserve-converter.
class ConvertCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command(
        "convert", "Convert a checkpoint of Metaseq, Hugging Face or FasterTransformer into a sharded one", selected);
    command.add_positional("source", convert_.source, "Folder, file or glob of the checkpoint", true);
    command.add_positional("destination", convert_.destination, "Folder to create", true);
    add_options(command, connection_options_);
    command.add("remote", remote_, "Let a converter service do it, on paths as that service sees them");
    command.add("dtype", convert_.dtype, "fp32, fp16, bf16 or keep");
    command.add("quantize", convert_.quantize, "Store the large matrices in fewer bits: int8, int8-mse, fp8 or int4");
    command.add("shards", convert_.shards, "Number of shards; 0: the converter chooses");
    command.add("parts", parts_,
                "Converters that share the work: so many jobs of this conversion are submitted, as a group");
    command.add("verify", convert_.verify, "Compare the result with the source afterwards");
    command.add("key", key_, "Submitting again with the same key gives the same job");
    command.add("ttl-ms", ttl_ms_, "Time until the conversion is given up");
    command.add("json", json_, "Print one JSON object at the end");
  }

  int run() override {
    Connection connection = Connection::open(connection_options_);
    protocol::JobSpec job;
    job.kind = protocol::JobKind::kConvert;
    job.key = key_;
    job.ttl_ms = ttl_ms_;
    job.convert = convert_;
    job.convert->source = std::filesystem::absolute(convert_.source).lexically_normal().string();
    job.convert->destination = std::filesystem::absolute(convert_.destination).lexically_normal().string();
    const std::vector<protocol::JobResult> results = FollowedJob::run_all(
        connection.client(), parts_of(job), [this](std::string_view, const protocol::JobEvent& event) {
          show_progress(event.progress_done, event.progress_total);
          return true;
        });
    if (shown_) std::fputc('\n', stderr);
    return report(results);
  }

 private:
  // The same conversion several times: converters that work on one destination share its shards.
  std::vector<protocol::JobSpec> parts_of(const protocol::JobSpec& job) const {
    if (parts_ < 1 || parts_ > kPartsMax)
      fail(refuse(ErrorCode::kBadRequest,
                  "parts is " + std::to_string(parts_) + ", expected 1 to " + std::to_string(kPartsMax)));
    std::vector<protocol::JobSpec> jobs(static_cast<size_t>(parts_), job);
    if (parts_ == 1) return jobs;
    const std::string group = Id128::random().hex();
    for (size_t i = 0; i < jobs.size(); ++i) {
      jobs[i].group = group;
      if (!key_.empty()) jobs[i].key = key_ + "." + std::to_string(i + 1);
    }
    return jobs;
  }

  // One job that succeeded has seen the whole checkpoint published, whatever became of the others.
  int report(const std::vector<protocol::JobResult>& results) const {
    int status = exit_status_of(results.front());
    const protocol::JobResult* told = &results.front();
    for (const protocol::JobResult& result : results) {
      if (json_) std::fputs(result_json(result).c_str(), stdout);
      if (status == 0 || exit_status_of(result) != 0) continue;
      status = 0;
      told = &result;
    }
    if (json_) return status;
    const std::string text = told->message.empty() ? result_summary(*told) : told->message + "\n";
    std::fputs(text.c_str(), status == 0 ? stdout : stderr);
    return status;
  }

  void show_progress(int64_t done, int64_t total) {
    if (total <= 0 || isatty(STDERR_FILENO) == 0) return;
    constexpr double kMega = 1e6;
    const std::string left = time_left_.text(static_cast<uint64_t>(done), static_cast<uint64_t>(total), clock_.now());
    std::fprintf(stderr, "\r\x1b[K%5.1f %%  %.1f of %.1f MB%s%s",
                 100.0 * static_cast<double>(done) / static_cast<double>(total), static_cast<double>(done) / kMega,
                 static_cast<double>(total) / kMega, left.empty() ? "" : ", ", left.c_str());
    shown_ = true;
  }

  static constexpr int kPartsMax = 64;

  protocol::ConvertSpec convert_{
      .source = {}, .destination = {}, .dtype = "keep", .shards = 0, .quantize = {}, .verify = false};
  ConnectionOptions connection_options_;
  bool remote_ = false;
  int parts_ = 1;
  SystemClock clock_;
  TimeLeft time_left_;
  std::string key_;
  int64_t ttl_ms_ = 3'600'000;
  bool json_ = false;
  bool shown_ = false;
};

// Only for the list of commands: commands.cc hands their command lines to optserve-converter.
class ExportCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command =
        parser.add_command("export", "Write a converted checkpoint as one of Hugging Face or Metaseq", selected);
    command.add_positional("checkpoint", checkpoint_, "Folder of the converted checkpoint", true);
    command.add_positional("destination", destination_, "Folder to create", true);
  }
  int run() override { return 0; }

 private:
  std::string checkpoint_, destination_;
};

class InspectCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command =
        parser.add_command("inspect", "Show what is in a checkpoint, foreign or converted", selected);
    command.add_positional("path", path_, "Folder or file", true);
  }
  int run() override { return 0; }

 private:
  std::string path_;
};

class CalibrateCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command(
        "calibrate", "Measure on a text how large the inputs of a model's large matrices get", selected);
    command.add_positional("checkpoint", checkpoint_, "Folder of the converted checkpoint", true);
  }
  int run() override { return 0; }

 private:
  std::string checkpoint_;
};

}  // namespace

std::unique_ptr<Command> make_convert_command() { return std::make_unique<ConvertCommand>(); }
std::unique_ptr<Command> make_export_command() { return std::make_unique<ExportCommand>(); }
std::unique_ptr<Command> make_inspect_command() { return std::make_unique<InspectCommand>(); }
std::unique_ptr<Command> make_calibrate_command() { return std::make_unique<CalibrateCommand>(); }

}  // namespace optserve::cli
