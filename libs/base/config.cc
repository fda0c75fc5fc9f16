#include "base/config.h"

#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/input_check.h"
#include "base/log.h"

namespace optserve {
namespace {

std::string environment_name(std::string_view option) {
  std::string name = "OPTSERVE_";
  for (const char c : option) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

// Lets CLI11 read YAML: scalars, lists of scalars, and one map per subcommand.
class YamlConfig final : public CLI::Config {
 public:
  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return {}; }

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> entries;
    try {
      const YAML::Node root = YAML::Load(input);
      if (root.IsNull()) return entries;
      if (!root.IsMap()) throw CLI::ConfigError("expected a YAML map of option: value");
      collect(root, {}, entries);
    } catch (const YAML::Exception& error) {
      throw CLI::ConfigError(std::string("YAML: ") + error.what());
    }
    return entries;
  }

 private:
  static void collect(const YAML::Node& map, const std::vector<std::string>& parents,
                      std::vector<CLI::ConfigItem>& entries) {
    for (const auto& entry : map) {
      const auto name = entry.first.as<std::string>();
      if (entry.second.IsMap()) {
        auto path = parents;
        path.push_back(name);
        collect(entry.second, path, entries);
        continue;
      }
      // CLI11 asks the environment last; here it outranks the file.
      if (std::getenv(environment_name(name).c_str()) != nullptr) continue;
      CLI::ConfigItem item;
      item.parents = parents;
      item.name = name;
      if (entry.second.IsSequence()) {
        for (const auto& value : entry.second) item.inputs.push_back(value.as<std::string>());
      } else if (!entry.second.IsNull()) {
        item.inputs.push_back(entry.second.as<std::string>());
      }
      entries.push_back(std::move(item));
    }
  }
};

// CLI11 puts "--NAME: " before the message of a check that fails.
template <class Check>
void add_check(CLI::Option& option, const std::string& description, Check check) {
  option.check(CLI::Validator(
      [check](const std::string& text) {
        const Status status = check(text);
        return status.ok() ? std::string() : status.refusal().message;
      },
      description));
}

template <class Check>
void add_number_check(CLI::Option& option, const std::string& description, Check check) {
  add_check(option, description, [check](const std::string& text) {
    double number = 0;
    return CLI::detail::lexical_cast(text, number) ? check(number) : ok_status();  // CLI11 refuses what is no number
  });
}

constexpr const char* kValue = "the value";

}  // namespace

ConfigOption& ConfigOption::range_of(double min, double max) {
  add_number_check(*option_, number_text(min) + " to " + number_text(max),
                   [=](double number) { return check_range(kValue, number, min, max); });
  return *this;
}

ConfigOption& ConfigOption::above(double min, double max) {
  add_number_check(*option_, "more than " + number_text(min) + ", at most " + number_text(max),
                   [=](double number) { return check_above(kValue, number, min, max); });
  return *this;
}

ConfigOption& ConfigOption::choices(std::span<const std::string_view> words) {
  const std::vector<std::string> allowed(words.begin(), words.end());
  std::string description;
  for (const std::string& word : allowed) description += (description.empty() ? "{" : ",") + word;
  add_check(*option_, description + "}", [allowed](const std::string& text) {
    const std::vector<std::string_view> views(allowed.begin(), allowed.end());
    return check_choice(kValue, text, views);
  });
  return *this;
}

ConfigOption& ConfigOption::choices(std::initializer_list<std::string_view> words) {
  return choices(std::span(words.begin(), words.size()));
}

struct ConfigParser::Impl {
  std::unique_ptr<CLI::App> owned;  // empty for a subcommand
  CLI::App* app = nullptr;
  std::vector<std::unique_ptr<ConfigParser>> commands;
  std::vector<std::pair<std::string, std::function<std::string()>>> printers;
};

ConfigParser::ConfigParser(std::string_view program, std::string_view description) : impl_(std::make_unique<Impl>()) {
  impl_->owned = std::make_unique<CLI::App>(std::string(description), std::string(program));
  impl_->app = impl_->owned.get();
  impl_->app->set_version_flag("--version", std::string(program) + " " OPTSERVE_VERSION);
  impl_->app->config_formatter(std::make_shared<YamlConfig>());
  // The variable is read here, since CLI11 reads the file before it looks at variables.
  const std::string file = environment_variable("OPTSERVE_CONFIG");
  impl_->app->set_config("--config", file, "YAML file with any of these options; or variable OPTSERVE_CONFIG",
                         !file.empty());
  impl_->app->allow_config_extras(CLI::config_extras_mode::error);
}

ConfigParser::ConfigParser(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ConfigParser::~ConfigParser() = default;

template <class T>
ConfigOption ConfigParser::add(std::string_view name, T& value, std::string_view help) {
  const std::string flag = "--" + std::string(name);
  CLI::Option* option = nullptr;
  if constexpr (std::is_same_v<T, bool>) {
    option = impl_->app->add_flag(flag + ",!--no-" + std::string(name), value, std::string(help));
  } else {
    option = impl_->app->add_option(flag, value, std::string(help))->capture_default_str();
  }
  option->envname(environment_name(name));
  impl_->printers.emplace_back(std::string(name), [&value]() -> std::string {
    if constexpr (std::is_same_v<T, std::string>) {
      return value;
    } else if constexpr (std::is_same_v<T, bool>) {
      return value ? "true" : "false";
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      std::string joined;
      for (const auto& item : value) joined += (joined.empty() ? "" : ",") + item;
      return joined;
    } else {
      return std::to_string(value);
    }
  });
  return ConfigOption(option);
}

template ConfigOption ConfigParser::add(std::string_view, std::string&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, bool&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, int&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, int64_t&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, uint64_t&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, float&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, double&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, std::vector<std::string>&, std::string_view);

ConfigOption ConfigParser::add_positional(std::string_view name, std::string& value, std::string_view help,
                                          bool required) {
  return ConfigOption(impl_->app->add_option(std::string(name), value, std::string(help))->required(required));
}

ConfigOption ConfigParser::add_positional(std::string_view name, std::vector<std::string>& values,
                                          std::string_view help, bool required) {
  return ConfigOption(impl_->app->add_option(std::string(name), values, std::string(help))->required(required));
}

ConfigParser& ConfigParser::add_command(std::string_view name, std::string_view help, bool& selected) {
  auto impl = std::make_unique<Impl>();
  impl->app = impl_->app->add_subcommand(std::string(name), std::string(help));
  impl->app->callback([&selected] { selected = true; });
  impl_->app->require_subcommand(1);
  impl_->commands.push_back(std::unique_ptr<ConfigParser>(new ConfigParser(std::move(impl))));
  return *impl_->commands.back();
}

int ConfigParser::parse(int argc, const char* const* argv) {
  try {
    impl_->app->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return impl_->app->exit(error);
  }
  return -1;
}

std::vector<ConfigParser::Given> ConfigParser::given() const {
  std::vector<Given> all;
  const CLI::App& app = *impl_->app;
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0 || option == app.get_config_ptr()) continue;
    const std::vector<std::string> values = option->results();
    const std::string variable = environment_variable(option->get_envname());
    const bool is_from_environment = !variable.empty() && values == std::vector<std::string>{variable};
    all.push_back({option->get_single_name(), values, option->get_lnames().empty(), is_from_environment});
  }
  return all;
}

std::vector<std::pair<std::string, std::string>> ConfigParser::effective() const {
  std::vector<std::pair<std::string, std::string>> values;
  for (const auto& [name, print] : impl_->printers) values.emplace_back(name, print());
  return values;
}

std::string environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value != nullptr ? value : "";
}

void add_common_options(ConfigParser& parser, CommonOptions& options) {
  parser.add("log-level", options.log_level, "Least severe level that is logged")
      .choices({"trace", "debug", "info", "warn", "error", "off"});
  parser.add("log-format", options.log_format, "Form of log lines").choices({"text", "json"});
  parser.add("http-address", options.http_address, "Address of /metrics, /livez, /readyz and /startupz");
  parser.add("http-port", options.http_port, "Port of /metrics and the health endpoints; 0 picks a free one")
      .range(0, 65'535);
}

void start_logging(std::string_view process, const CommonOptions& options, const ConfigParser& parser) {
  init_logging(process, options.log_level, options.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  for (const auto& [name, value] : parser.effective()) log_info("config", {{"option", name}, {"value", value}});
}

}  // namespace optserve
