#include "cli/doctor/machine_facts.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/avx2.h"
#include "base/error.h"
#include "base/machine.h"
#include "cli/stack/free_ports.h"

namespace optserve::cli {
namespace {

constexpr int kSyncs = 30;
constexpr size_t kSyncBytes = 4096;
constexpr int kClientPort = 5555, kServicePort = 5556, kApiPort = 8000, kFirstHttpPort = 9400, kHttpPorts = 5;

// The rest of the first line of a file that begins with `name`, without colon and blanks between them.
std::string line_after(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(name)) continue;
    const size_t value = line.find_first_not_of(" \t:", name.size());
    return value == std::string::npos ? "" : line.substr(value);
  }
  return {};
}

int64_t kibibytes_after(const std::string& path, const std::string& name) {
  return std::strtoll(line_after(path, name).c_str(), nullptr, 10) << 10;
}

int64_t free_bytes(const std::string& folder) {
  struct statvfs system {};
  if (statvfs(folder.c_str(), &system) != 0) return -1;
  return static_cast<int64_t>(system.f_bavail * system.f_frsize);
}

// A library that is found stays loaded, since what it allocated when it was loaded cannot be freed.
bool has_library(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (dlopen(name, RTLD_LAZY | RTLD_LOCAL) != nullptr) return true;
  }
  return false;
}

void look_at_processor(MachineFacts& facts) {
  facts.processor = line_after("/proc/cpuinfo", "model name");
  const std::string flags = " " + line_after("/proc/cpuinfo", "flags") + " ";
  facts.has_avx2 = has_avx2();
  facts.has_avx512 = flags.find(" avx512f ") != std::string::npos;
  facts.cores = usable_cores();
}

void look_at_memory(MachineFacts& facts) {
  facts.memory_bytes = kibibytes_after("/proc/meminfo", "MemTotal");
  facts.memory_available_bytes = kibibytes_after("/proc/meminfo", "MemAvailable");
  facts.memory_limit_bytes = read_cgroup_limits().memory_bytes;
  facts.shared_memory_free_bytes = free_bytes("/dev/shm");
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) facts.open_files_max = files.rlim_cur;
}

void look_at_devices(MachineFacts& facts) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", error)) {
    facts.gpus.push_back(line_after(entry.path() / "information", "Model"));
  }
  const std::string version = line_after("/proc/driver/nvidia/version", "NVRM version");
  const size_t digits = version.find_first_of("0123456789", std::min(version.find("Module"), version.size()));
  if (digits != std::string::npos) facts.driver = version.substr(digits, version.find(' ', digits) - digits);
  facts.has_cublas = has_library({"libcublasLt.so.13", "libcublasLt.so.12"});
  facts.has_nccl = has_library({"libnccl.so.2"});
}

DiskFacts look_at_disk(const std::string& folder, const Clock& clock) {
  DiskFacts disk;
  disk.folder = folder;
  disk.free_bytes = free_bytes(folder);
  std::string path = folder + "/optserve-doctor-XXXXXX";
  const int file = mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) {
    disk.error = errno_error("create a file in " + folder).what();
    return disk;
  }
  unlink(path.c_str());
  const std::array<char, kSyncBytes> block{};
  std::vector<double> times;
  for (int i = 0; i < kSyncs; ++i) {
    const Instant begun = clock.now();
    if (write(file, block.data(), block.size()) != static_cast<ssize_t>(block.size()) || fdatasync(file) != 0) {
      disk.error = errno_error("write to " + folder).what();
      break;
    }
    times.push_back(std::chrono::duration<double, std::milli>(clock.now() - begun).count());
  }
  close(file);
  if (!disk.error.empty()) return disk;
  std::ranges::sort(times);
  disk.sync_ms_median = times[times.size() / 2];
  disk.sync_ms_worst = times.back();
  return disk;
}

void look_at_ports(MachineFacts& facts) {
  facts.ports = {kClientPort, kServicePort, kApiPort};
  for (int i = 0; i < kHttpPorts; ++i) facts.ports.push_back(kFirstHttpPort + i);
  for (const int port : facts.ports) {
    if (!is_port_free(port)) facts.ports_in_use.push_back(port);
  }
}

}  // namespace

MachineFacts look_at_machine(const std::string& folder, const Clock& clock) {
  MachineFacts facts;
  look_at_processor(facts);
  look_at_memory(facts);
  look_at_devices(facts);
  facts.disk = look_at_disk(folder, clock);
  look_at_ports(facts);
  timex time{};
  facts.is_clock_synchronised = adjtimex(&time) != TIME_ERROR && (time.status & STA_UNSYNC) == 0;
  facts.wall_ms = clock.wall_ms();
  std::error_code error;
  const auto folder_of_programs = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const char* program : {"optserve-scheduler", "optserve-tokenizer", "optserve-worker", "optserve-gateway",
                              "optserve-converter", "optserve-checkpoint-reader"}) {
    if (access((folder_of_programs / program).c_str(), X_OK) != 0) facts.missing_programs.emplace_back(program);
  }
  return facts;
}

}  // namespace optserve::cli
