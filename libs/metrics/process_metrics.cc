#include "metrics/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "base/build_info.h"
#include "base/log.h"
#include "base/machine.h"

namespace optserve::metrics {
namespace {

void add(std::ostringstream& text, const char* name, const char* type, const char* help, double value) {
  text << "# HELP " << name << " " << help << "\n# TYPE " << name << " " << type << "\n"
       << name << " " << value << "\n";
}

// The fields of /proc/self/stat from the third on; the second is a name that may hold spaces.
std::vector<double> stat_fields() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  std::istringstream rest(line.substr(std::min(line.size(), line.rfind(')') + 2)));
  std::string state;
  rest >> state;
  std::vector<double> fields{0};
  for (double field = 0; rest >> field;) fields.push_back(field);
  return fields;
}

// Seconds since 1970; 0: not known.
double boot_time() {
  std::ifstream file("/proc/stat");
  for (std::string word; file >> word;) {
    double seconds = 0;
    if (word == "btime" && file >> seconds) return seconds;
  }
  return 0;
}

}  // namespace

std::string process_metrics_text() {
  // The indices of the fields: their numbers in proc(5), minus three.
  constexpr size_t kUserTicks = 14 - 3, kSystemTicks = 15 - 3, kStartTicks = 22 - 3, kVirtualBytes = 23 - 3,
                   kResidentPages = 24 - 3;
  std::ostringstream text;
  text.precision(15);
  const std::vector<double> fields = stat_fields();
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (fields.size() > kResidentPages && ticks > 0) {
    add(text, "process_cpu_seconds_total", "counter", "Processor time of this process",
        (fields[kUserTicks] + fields[kSystemTicks]) / ticks);
    add(text, "process_resident_memory_bytes", "gauge", "Memory of this process in RAM",
        fields[kResidentPages] * static_cast<double>(sysconf(_SC_PAGESIZE)));
    add(text, "process_virtual_memory_bytes", "gauge", "Address space of this process", fields[kVirtualBytes]);
    if (const double boot = boot_time(); boot > 0) {
      add(text, "process_start_time_seconds", "gauge", "Start of this process, in seconds since 1970",
          boot + fields[kStartTicks] / ticks);
    }
  }
  std::error_code failed;
  const std::filesystem::directory_iterator descriptors("/proc/self/fd", failed);
  if (!failed) {
    add(text, "process_open_fds", "gauge", "Open descriptors",
        static_cast<double>(std::distance(begin(descriptors), end(descriptors))));
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    add(text, "process_max_fds", "gauge", "Most descriptors that may be open", static_cast<double>(limit.rlim_cur));
  }
  add(text, "optserve_log_lines_lost_total", "counter", "Log lines that standard error had no room for",
      static_cast<double>(log_lines_lost()));
  add(text, "optserve_usable_cores", "gauge", "Cores that affinity and control group leave to this process",
      usable_cores());
  add(text, "optserve_usable_memory_bytes", "gauge",
      "Memory that the control group of this process may use, or that the machine has",
      static_cast<double>(usable_memory_bytes()));
  text << "# HELP optserve_build_info The version of this program\n# TYPE optserve_build_info gauge\n"
       << "optserve_build_info{program=\"" << program_invocation_short_name << "\",version=\"" << build_version()
       << "\"} 1\n";
  return text.str();
}

}  // namespace optserve::metrics
