// The options that every service has.
#include "base/config.h"
#include "base/log.h"
#include "base/termination.h"

namespace optserve {

void add_common_options(ConfigParser& parser, CommonOptions& options) {
  parser.begin_group("Logs, metrics and health");
  parser.add("log-level", options.log_level, "Least severe level that is logged")
      .choices({"trace", "debug", "info", "warn", "error", "off"});
  parser.add("log-format", options.log_format, "Form of log lines").choices({"text", "json"});
  parser.add("http-address", options.http_address, "Address of /metrics, /livez, /readyz and /startupz");
  parser.add("http-port", options.http_port, "Port of /metrics and the health endpoints; 0 picks a free one")
      .range(0, 65'535);
  parser
      .add("metrics-compat", options.metrics_compat,
           "Give metrics the names of another system too (docs/monitoring.md): none or vllm")
      .choices({"none", "vllm"});
  parser.add(
      "termination-log", options.termination_log,
      "File for one line that says why the program could not go on; empty: /dev/termination-log, if there is one");
  parser.mark_rare({"metrics-compat", "termination-log"});
  parser.begin_group("Options");
}

void start_logging(std::string_view process, const CommonOptions& options, const ConfigParser& parser) {
  set_termination_log(options.termination_log);
  init_logging(process, options.log_level, options.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  std::string set;
  for (const ConfigParser::Given& given : parser.given()) {
    std::string values;
    for (const std::string& value : given.values) {
      values += (values.empty() ? "" : ",") + (given.is_unlogged ? "(not shown)" : value);
    }
    set += (set.empty() ? "" : ", ") + given.name + "=" + values;
    if (given.source != "command line") set += " (" + given.source + ")";
  }
  log_info("config", {{"set", set}});
  for (const auto& [name, value] : parser.effective()) log_debug("option", {{"name", name}, {"value", value}});
  for (const std::string& warning : parser.warnings()) log_warn("stray_variable", {{"meaning", warning}});
}

}  // namespace optserve
