// Configuration from flags, a YAML file and, for services, environment variables: a flag outranks a variable, which
// outranks the file. Only this component includes CLI11 and yaml-cpp.
//
//   struct Options { std::string bind = "tcp://127.0.0.1:5555"; int threads = 0; };
//   ConfigParser parser("optserve-scheduler", "Holds the job queue.");
//   parser.use_environment();
//   parser.add("bind", options.bind, "Address clients connect to");
//   parser.add("threads", options.threads, "Worker threads; 0: one for each core").range(0, 1024);
//   parser.parse(argc, argv);
//
// Option "queue-max" of optserve-scheduler is --queue-max (or --queue_max), the YAML key queue-max and the variable
// OPTSERVE_SCHEDULER_QUEUE_MAX. The file has a section for each command: "jobs: {list: {limit: 5}}" sets --limit of
// "optserve jobs list". A key outside of the sections applies to every command that has such an option.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace optserve {

namespace detail {
struct OptionEntry;
struct ParserEntry;
}  // namespace detail

// Sets which values an option accepts, for flags, environment and file alike, and in the help text. Valid as long as
// the parser. Defaults are not checked.
class ConfigOption {
 public:
  explicit ConfigOption(detail::OptionEntry& entry) : entry_(&entry) {}

  template <class Min, class Max>
  ConfigOption& range(Min min, Max max) {
    return range_of(static_cast<double>(min), static_cast<double>(max));
  }
  ConfigOption& above(double min, double max);  // min < value <= max
  ConfigOption& choices(std::span<const std::string_view> words);
  ConfigOption& choices(std::initializer_list<std::string_view> words);
  // Names that other systems give to this option; they are accepted for it.
  ConfigOption& also(std::initializer_list<std::string_view> names);
  // A list whose values may also be given in one word, separated by commas. A variable can hold several values only in
  // this way.
  ConfigOption& separated_by_commas();
  // Logs do not show its value.
  ConfigOption& unlogged();
  // Not in the help text; for options that our programs give each other.
  ConfigOption& hidden();

 private:
  ConfigOption& range_of(double min, double max);

  detail::OptionEntry* entry_;
};

class ConfigParser {
 public:
  ConfigParser(std::string_view program, std::string_view description);
  ~ConfigParser();
  ConfigParser(const ConfigParser&) = delete;
  ConfigParser& operator=(const ConfigParser&) = delete;

  // Options that are added afterwards can be set by variables. For programs that run as services.
  void use_environment();
  // The heading under which the help text lists the options that are added afterwards.
  void begin_group(std::string_view heading);
  // A command line that the help text shows, and what it does.
  void add_example(std::string_view command_line, std::string_view what_it_does);
  // The examples of this program and of its commands.
  struct Example {
    std::string command;  // "optserve jobs list"
    std::string command_line;
    std::string what_it_does;
  };
  std::vector<Example> examples() const;
  // The commands that can be run, as one types them: "optserve jobs list".
  std::vector<std::string> commands() const;
  // A word that people try as a command, and the command that does what they mean.
  void add_hint(std::string_view word, std::string_view command);

  // Binds an option to a variable, whose current value is the default. T: std::string, bool, int, int64_t, uint64_t,
  // float, double, std::vector<std::string>.
  template <class T>
  ConfigOption add(std::string_view name, T& value, std::string_view help);
  // Marks options that were added before as needed by few people: the help text shows them only with --help-all and
  // --help=WORD.
  void mark_rare(std::initializer_list<std::string_view> names);
  // A required or optional positional argument.
  ConfigOption add_positional(std::string_view name, std::string& value, std::string_view help, bool required);
  // A positional argument that takes all arguments that follow.
  ConfigOption add_positional(std::string_view name, std::vector<std::string>& values, std::string_view help,
                              bool required);
  // A subcommand with options of its own; `selected` says whether it was given.
  ConfigParser& add_command(std::string_view name, std::string_view help, bool& selected);

  // Parses. On --help, --help-all, --version, --manual (the manual page of the command, or with =FOLDER those of the
  // program and all its commands as files), --completion=SHELL or an error it prints to the right stream and returns
  // the exit status: kExitOk, kExitUsage, or kExitConfiguration if a file or variable is wrong. Otherwise it returns
  // -1. With --json an error is a JSON object.
  int parse(int argc, const char* const* argv);
  // Sets one option, by any of its names, while the program runs, with the checks of the command line. A list may get
  // several values, and no value restores the default. A refusal changes nothing.
  Status set(std::string name, const std::vector<std::string>& values);
  // A sentence for each environment variable that looks as if it were meant for this program, but is not read by it.
  std::vector<std::string> warnings() const;
  // What flags, environment or configuration file have set for this command, in the order of declaration. `values` are
  // the texts as given: "--NAME=VALUE" for each of them sets the same in another program.
  struct Given {
    std::string name;
    std::vector<std::string> values;
    std::string source;  // "command line", "variable X" or "FILE:LINE"
    bool is_positional = false;
    bool is_unlogged = false;
  };
  std::vector<Given> given() const;
  // The effective values as name and text, defaults included.
  std::vector<std::pair<std::string, std::string>> effective() const;

 private:
  explicit ConfigParser(std::unique_ptr<detail::ParserEntry> entry);
  std::unique_ptr<detail::ParserEntry> entry_;
};

// A variable that other programs define (MASTER_ADDR of torchrun); empty when it is unset. For defaults only.
std::string environment_variable(const std::string& name);

// The flags that every process shares.
struct CommonOptions {
  std::string log_level = "info";
  std::string log_format = "text";         // text or json
  std::string http_address = "127.0.0.1";  // of /metrics and the health endpoints
  int http_port = 0;                       // 0: any free port, printed at start
  std::string termination_log;             // base/termination.h; empty: /dev/termination-log, if there is one
  std::string metrics_compat = "none";     // none or vllm: further names of the same metrics
};
void add_common_options(ConfigParser& parser, CommonOptions& options);
// Starts logging. One line says which options were set and where; the defaults are logged at level debug.
void start_logging(std::string_view process, const CommonOptions& options, const ConfigParser& parser);

}  // namespace optserve
