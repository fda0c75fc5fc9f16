// `convert`, `export`, `inspect` and `calibrate`. On this machine optserve-converter does the work, a program that
// needs no scheduler; `convert --remote` is a job for a converter service.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/ids.h"
#include "base/progress_line.h"
#include "base/shutdown.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/commands/followed_job.h"
#include "cli/stack/child_process.h"
#include "cli/text/result_text.h"
#include "conversion/command_options.h"

namespace optserve::cli {
namespace {

using Given = ConfigParser::Given;

// Does not return: this process becomes optserve-converter, which gets all options of the command.
[[noreturn]] void become_converter(const std::string& command, const std::vector<Given>& given) {
  std::vector<std::string> arguments{sibling_program("optserve-converter"), command};
  std::vector<std::string> positionals;
  for (const Given& one : given) {
    for (const std::string& value : one.values) {
      if (one.is_positional) {
        positionals.push_back(value);
      } else {
        arguments.push_back("--" + one.name + "=" + value);
      }
    }
  }
  arguments.push_back("--");
  arguments.insert(arguments.end(), positionals.begin(), positionals.end());
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv(argv.front(), argv.data());
  throw errno_error("start " + arguments.front());
}

// A command of optserve-converter.
template <class Options>
class ConverterCommand final : public Command {
 public:
  using Examples = std::vector<std::pair<const char*, const char*>>;  // command line, what it does
  ConverterCommand(const char* name, Examples examples) : name_(name), examples_(std::move(examples)) {}

  void declare(ConfigParser& parser) override {
    parser_ = &conversion::add_command(parser, options_, selected);
    for (const auto& [command_line, what_it_does] : examples_) parser_->add_example(command_line, what_it_does);
  }
  int run(const Clock&) override { become_converter(name_, parser_->given()); }

 private:
  const char* name_;
  Examples examples_;
  Options options_;
  ConfigParser* parser_ = nullptr;
};

// The options of `convert` that a conversion job has too; the others are the converter service's own.
constexpr const char* kJobOptions[] = {"source", "destination", "dtype", "quantize", "shards", "verify", "progress"};
constexpr const char* kConnectionOptions[] = {"scheduler", "dir", "timeout-ms", "patience-seconds"};
constexpr const char* kRemoteOptions[] = {"parts", "key", "ttl-ms", "json"};

template <class Names>
bool is_one_of(const std::string& name, const Names& names) {
  return std::ranges::find(names, name) != std::ranges::end(names);
}

class ConvertCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = conversion::add_command(parser, convert_, selected);
    command.begin_group("With --remote");
    command.add("remote", remote_,
                "Have a converter service do the conversion, which must see the same paths; allows --dtype, "
                "--quantize, --shards, --verify and --progress, and needs a scheduler");
    add_options(command, connection_options_);
    add_patience_option(command, connection_options_);
    command.begin_group("With --remote");
    command.add("parts", parts_, "Number of converters that share the work, each with a job of its own")
        .range(1, kPartsMax);
    command.add("key", key_, "Submitting again with the same key gives the same job");
    command.add("ttl-ms", ttl_ms_, "Time after which the conversion is given up");
    command.add("json", json_, "Print one JSON object for each job at the end");
    command.mark_rare({"smooth", "smooth-alpha", "heads", "head", "vocab", "merges", "tokenizer", "prompt-tokens",
                       "allow-nonfinite", "check-source", "restart", "pass-mib-max", "progress", "sandbox",
                       "reader-seconds", "parts", "key", "ttl-ms"});
    command.add_example("optserve convert checkpoints/opt-125m models/opt-125m", "a folder that can be served");
    command.add_example("optserve convert checkpoints/opt-6.7b models/opt-6.7b-int8 --quantize int8 --verify",
                        "weights in 8 bits, compared with the source");
    command.add_example("optserve convert --remote /data/opt-66b /data/models/opt-66b --parts 4",
                        "by four converters of a running system");
    parser_ = &command;
  }

  int run(const Clock& clock) override {
    std::vector<Given> given = parser_->given();
    if (remote_) {
      check_remote(given);
      return run_remotely(clock);
    }
    for (const Given& one : given) {
      if (is_one_of(one.name, kRemoteOptions)) {
        throw CommandFailure{kExitUsage, one.name + ": only a conversion with --remote has this option"};
      }
    }
    std::erase_if(given, [](const Given& one) {
      return one.name == "remote" || is_one_of(one.name, kConnectionOptions) || is_one_of(one.name, kRemoteOptions);
    });
    become_converter("convert", given);
  }

 private:
  static void check_remote(const std::vector<Given>& given) {
    for (const Given& one : given) {
      const bool is_known = one.name == "remote" || is_one_of(one.name, kJobOptions) ||
                            is_one_of(one.name, kConnectionOptions) || is_one_of(one.name, kRemoteOptions);
      if (!is_known) {
        throw CommandFailure{kExitUsage, one.name + ": a conversion with --remote does not have this option"};
      }
    }
  }

  int run_remotely(const Clock& clock) {
    Connection connection = Connection::open(connection_options_);
    protocol::JobSpec job;
    job.kind = protocol::JobKind::kConvert;
    job.key = key_;
    job.ttl_ms = ttl_ms_;
    job.convert = protocol::ConvertSpec{.source = absolute(convert_.input),
                                        .destination = absolute(convert_.output),
                                        .dtype = convert_.dtype,
                                        .shards = convert_.shards,
                                        .quantize = convert_.quantize,
                                        .verify = convert_.verify};
    ProgressLine progress(true);
    const bool is_shown = convert_.show_progress && isatty(STDERR_FILENO) != 0;
    FollowedJob followed(connection.client(), connection_options_.patience());
    const std::vector<protocol::JobResult> results =
        followed.run_all(parts_of(job), [&](std::string_view, const protocol::JobEvent& event) {
          if (is_shown && event.progress_total > 0) {
            std::fputs(progress
                           .show(static_cast<uint64_t>(event.progress_done),
                                 static_cast<uint64_t>(event.progress_total), "", clock.now())
                           .c_str(),
                       stderr);
          }
          return true;
        });
    std::fputs(progress.erase().c_str(), stderr);
    const int status = report(results);
    return shutdown_requested() ? kExitInterrupted : status;
  }

  static std::string absolute(const std::string& path) {
    return std::filesystem::absolute(path).lexically_normal().string();
  }

  // The same conversion several times: converters that work on one destination share its shards.
  std::vector<protocol::JobSpec> parts_of(const protocol::JobSpec& job) const {
    std::vector<protocol::JobSpec> jobs(static_cast<size_t>(parts_), job);
    if (parts_ == 1) return jobs;
    const std::string group = Id128::random().hex();
    for (size_t i = 0; i < jobs.size(); ++i) {
      jobs[i].group = group;
      if (!key_.empty()) jobs[i].key = key_ + "." + std::to_string(i + 1);
    }
    return jobs;
  }

  // One job that succeeded has seen the whole checkpoint published, whatever happened to the others.
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

  static constexpr int kPartsMax = 64;

  conversion::ConvertCommand convert_;
  ConnectionOptions connection_options_;
  bool remote_ = false;
  int parts_ = 1;
  std::string key_;
  int64_t ttl_ms_ = 3'600'000;
  bool json_ = false;
  ConfigParser* parser_ = nullptr;
};

}  // namespace

std::unique_ptr<Command> make_convert_command() { return std::make_unique<ConvertCommand>(); }
std::unique_ptr<Command> make_export_command() {
  return std::make_unique<ConverterCommand<conversion::ExportCommand>>(
      "export",
      ConverterCommand<conversion::ExportCommand>::Examples{
          {"optserve export models/opt-125m hf/opt-125m --format huggingface", "for transformers"},
          {"optserve export models/opt-125m metaseq/opt-125m --format metaseq --parts 2", "for Metaseq, in two parts"},
          {"optserve export models/opt-30b hf/opt-30b --file-mb-max 5000", "in files of at most 5 GB"}});
}
std::unique_ptr<Command> make_inspect_command() {
  return std::make_unique<ConverterCommand<conversion::InspectCommand>>(
      "inspect", ConverterCommand<conversion::InspectCommand>::Examples{
                     {"optserve inspect checkpoints/opt-125m", "a checkpoint of any layout"},
                     {"optserve inspect models/opt-125m --tensors", "every tensor"},
                     {"optserve inspect models/opt-125m --json", "for a program"}});
}
std::unique_ptr<Command> make_calibrate_command() {
  return std::make_unique<ConverterCommand<conversion::CalibrateCommand>>(
      "calibrate",
      ConverterCommand<conversion::CalibrateCommand>::Examples{
          {"optserve calibrate models/opt-1.3b --text sample.txt --output ranges.json", "the ranges of all inputs"},
          {"optserve calibrate models/opt-1.3b --text sample.txt --output ranges.json --tokens 4096",
           "from more of the text"},
          {"optserve convert checkpoints/opt-1.3b models/smooth --smooth ranges.json --quantize int8", "uses them"}});
}

}  // namespace optserve::cli
