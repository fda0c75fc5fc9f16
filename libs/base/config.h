// Configuration from flags, environment and a YAML file, in that order of precedence. The only includer of CLI11 and
// yaml-cpp.
//
//   struct Options { std::string bind = "tcp://127.0.0.1:5555"; int threads = 0; };
//   ConfigParser parser("optserve-scheduler", "Holds the job queue.");
//   parser.add("bind", options.bind, "Address clients connect to");
//   parser.add("threads", options.threads, "Worker threads; 0: one for each core").range(0, 1024);
//   parser.parse(argc, argv);
//
// Option "queue-max" is --queue-max, OPTSERVE_QUEUE_MAX and the YAML key queue-max.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace CLI {
class Option;
}

namespace optserve {

// What values an option accepts. Holds for flags, environment and file alike, is part of the help text, and lasts as
// long as the parser. Defaults are not checked.
class ConfigOption {
 public:
  explicit ConfigOption(CLI::Option* option) : option_(option) {}

  template <class Min, class Max>
  ConfigOption& range(Min min, Max max) {
    return range_of(static_cast<double>(min), static_cast<double>(max));
  }
  ConfigOption& above(double min, double max);  // min < value <= max
  ConfigOption& choices(std::span<const std::string_view> words);
  ConfigOption& choices(std::initializer_list<std::string_view> words);

 private:
  ConfigOption& range_of(double min, double max);

  CLI::Option* option_;
};

class ConfigParser {
 public:
  ConfigParser(std::string_view program, std::string_view description);
  ~ConfigParser();
  ConfigParser(const ConfigParser&) = delete;
  ConfigParser& operator=(const ConfigParser&) = delete;

  // Binds an option to a variable, whose present value is the default. T: std::string, bool, int, int64_t, uint64_t,
  // float, double, std::vector<std::string>.
  template <class T>
  ConfigOption add(std::string_view name, T& value, std::string_view help);
  // A required or optional positional argument.
  ConfigOption add_positional(std::string_view name, std::string& value, std::string_view help, bool required);
  // All arguments that follow.
  ConfigOption add_positional(std::string_view name, std::vector<std::string>& values, std::string_view help,
                              bool required);
  // A subcommand with options of its own; `selected` says whether it was given.
  ConfigParser& add_command(std::string_view name, std::string_view help, bool& selected);

  // Parses; on --help, --version or an error prints to the right stream and returns the exit status, else returns -1.
  int parse(int argc, const char* const* argv);
  // What flags, environment or configuration file have set for this command, in the order of declaration. `values` are
  // the texts as they were given: "--NAME=VALUE" for each of them sets the same in another program.
  struct Given {
    std::string name;
    std::vector<std::string> values;
    bool is_positional = false;
    bool is_from_environment = false;  // the value is that of its variable, which may be meant for other commands
  };
  std::vector<Given> given() const;
  // The effective values as "name=value" lines, defaults included, for the log at start.
  std::vector<std::pair<std::string, std::string>> effective() const;

 private:
  struct Impl;
  explicit ConfigParser(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A variable that other programs define (MASTER_ADDR of torchrun); empty when it is unset. For defaults only.
std::string environment_variable(const std::string& name);

// The flags that every process shares.
struct CommonOptions {
  std::string log_level = "info";
  std::string log_format = "text";         // text or json
  std::string http_address = "127.0.0.1";  // of /metrics and the health endpoints
  int http_port = 0;                       // 0: any free port, printed at start
};
void add_common_options(ConfigParser& parser, CommonOptions& options);
// Starts logging and prints every effective value, once.
void start_logging(std::string_view process, const CommonOptions& options, const ConfigParser& parser);

}  // namespace optserve
