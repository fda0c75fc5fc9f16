#include "cli/doctor/diagnosis.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/text/text_table.h"

namespace optserve::cli {
namespace {

constexpr int64_t kMebibyte = 1 << 20, kGibibyte = 1 << 30;
constexpr int64_t kMemoryWanted = kGibibyte;
constexpr int64_t kSharedMemoryWanted = 64 * kMebibyte;
constexpr int64_t kDiskWanted = kGibibyte;
constexpr uint64_t kOpenFilesWanted = 4096;
constexpr double kSlowSyncMs = 20;
constexpr int kDriverWanted = 550;
constexpr int64_t kYear2024Ms = 1'704'067'200'000;

std::string bytes_text(int64_t bytes) {
  std::array<char, 32> text{};
  if (bytes >= kGibibyte) {
    std::snprintf(text.data(), text.size(), "%.1f GiB", static_cast<double>(bytes) / kGibibyte);
  } else {
    std::snprintf(text.data(), text.size(), "%.0f MiB", static_cast<double>(bytes) / kMebibyte);
  }
  return text.data();
}

std::string ms_text(double ms) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.2f ms", ms);
  return text.data();
}

template <class Items>
std::string listed(const Items& items) {
  std::string text;
  for (const auto& item : items) {
    text += text.empty() ? "" : ", ";
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(item)>>) {
      text += std::to_string(item);
    } else {
      text += item;
    }
  }
  return text;
}

Finding judge_programs(const MachineFacts& facts) {
  if (facts.missing_programs.empty()) return {"programs", Health::kGood, "all are installed", ""};
  return {"programs", Health::kProblem, "missing beside optserve: " + listed(facts.missing_programs),
          "install or build all programs into one folder"};
}

Finding judge_processor(const MachineFacts& facts) {
  const std::string name = facts.processor.empty() ? "unknown" : facts.processor;
  const std::string found = name + ", " + std::to_string(facts.cores) + (facts.cores == 1 ? " core" : " cores") +
                            (facts.has_avx2 ? ", AVX2" : "") + (facts.has_avx512 ? ", AVX-512" : "");
  if (!facts.has_avx2) {
    return {"processor", Health::kWarning, found + "; no AVX2",
            "workers on the CPU are several times slower without it"};
  }
  if (facts.cores < 2) {
    return {"processor", Health::kWarning, found, "scheduler, tokenizer and worker share one core: give them two"};
  }
  return {"processor", Health::kGood, found, ""};
}

Finding judge_memory(const MachineFacts& facts) {
  std::string found = bytes_text(facts.memory_bytes) + ", " + bytes_text(facts.memory_available_bytes) + " available";
  int64_t usable = facts.memory_available_bytes;
  if (facts.memory_limit_bytes > 0) {
    found += ", limit " + bytes_text(facts.memory_limit_bytes);
    usable = std::min(usable, facts.memory_limit_bytes);
  }
  if (usable >= kMemoryWanted) return {"memory", Health::kGood, found, ""};
  return {"memory", Health::kWarning, found,
          "a worker needs the size of its weights and its cache: end other programs, or raise the limit"};
}

Finding judge_shared_memory(const MachineFacts& facts) {
  const bool is_there = facts.shared_memory_free_bytes >= 0;
  const std::string found =
      is_there ? bytes_text(facts.shared_memory_free_bytes) + " free in /dev/shm" : "there is no /dev/shm";
  const bool is_needed = facts.gpus.size() > 1;  // by NCCL; groups on the CPU have memory of their own
  if (!is_needed || facts.shared_memory_free_bytes >= kSharedMemoryWanted) {
    return {"shared_memory", Health::kGood, is_needed ? found : found + "; only groups of GPUs need it", ""};
  }
  if (!is_there) return {"shared_memory", Health::kProblem, found, "NCCL needs it: mount a tmpfs there"};
  return {"shared_memory", Health::kWarning, found, "in a container, start it with --shm-size=1g"};
}

Finding judge_devices(const MachineFacts& facts) {
  if (facts.gpus.empty() && facts.driver.empty()) {
    return {"gpus", Health::kGood, "none; workers run on the CPU", ""};
  }
  const std::string found = (facts.gpus.empty() ? "none" : listed(facts.gpus)) + "; driver " +
                            (facts.driver.empty() ? "unknown" : facts.driver);
  if (facts.gpus.empty()) {
    return {"gpus", Health::kProblem, found, "the driver is loaded and sees no GPU: look at dmesg and nvidia-smi"};
  }
  if (!facts.driver.empty() && std::strtol(facts.driver.c_str(), nullptr, 10) < kDriverWanted) {
    return {"gpus", Health::kProblem, found, "CUDA 12.4 needs driver " + std::to_string(kDriverWanted) + " or later"};
  }
  return {"gpus", Health::kGood, found, ""};
}

Finding judge_device_libraries(const MachineFacts& facts) {
  const std::string found = std::string("cuBLAS ") + (facts.has_cublas ? "found" : "missing") + ", NCCL " +
                            (facts.has_nccl ? "found" : "missing");
  if (facts.gpus.empty()) return {"gpu_libraries", Health::kGood, found + "; not needed without a GPU", ""};
  if (!facts.has_cublas) {
    return {"gpu_libraries", Health::kProblem, found, "install libcublas 12 or 13 from NVIDIA's repository"};
  }
  if (!facts.has_nccl) {
    return {"gpu_libraries", Health::kProblem, found,
            "install libnccl2 from NVIDIA's repository: no worker starts without it"};
  }
  return {"gpu_libraries", Health::kGood, found, ""};
}

Finding judge_limits(const MachineFacts& facts) {
  const std::string found = std::to_string(facts.open_files_max) + " open files";
  if (facts.open_files_max >= kOpenFilesWanted) return {"limits", Health::kGood, found, ""};
  return {"limits", Health::kWarning, found,
          "a scheduler with many clients needs more: ulimit -n 65536, or LimitNOFILE= in a systemd unit"};
}

Finding judge_disk(const DiskFacts& disk) {
  if (!disk.error.empty()) {
    return {"disk", Health::kProblem, disk.error,
            "the journal needs a folder that can be written: --dir names another"};
  }
  const std::string found = disk.folder + ": " + bytes_text(disk.free_bytes) + " free; a sync takes " +
                            ms_text(disk.sync_ms_median) + ", at most " + ms_text(disk.sync_ms_worst);
  if (disk.free_bytes < kDiskWanted) {
    return {"disk", Health::kWarning, found, "a full disk makes the scheduler refuse jobs: make room, or use another"};
  }
  if (disk.sync_ms_median > kSlowSyncMs) {
    return {"disk", Health::kWarning, found, "every accepted job waits for a sync: put the journal on a local SSD"};
  }
  return {"disk", Health::kGood, found, ""};
}

Finding judge_ports(const MachineFacts& facts) {
  if (facts.ports_in_use.empty()) return {"ports", Health::kGood, "free: " + listed(facts.ports), ""};
  return {"ports", Health::kWarning, "in use: " + listed(facts.ports_in_use),
          "a stack may be running (optserve status); another one starts with --ports auto"};
}

Finding judge_clock(const MachineFacts& facts) {
  const std::string found = utc_text(facts.wall_ms) + " UTC";
  if (facts.wall_ms < kYear2024Ms) return {"clock", Health::kProblem, found, "the date is wrong: set it"};
  if (!facts.is_clock_synchronised) {
    return {"clock", Health::kWarning, found + "; not synchronised",
            "run chrony or systemd-timesyncd: results are kept, and keys expire, by the time of day"};
  }
  return {"clock", Health::kGood, found + "; synchronised", ""};
}

const char* health_word(Health health) {
  return health == Health::kGood ? "good" : health == Health::kWarning ? "warning" : "problem";
}

const char* health_colour(Health health) {
  return health == Health::kGood ? "\x1b[32m" : health == Health::kWarning ? "\x1b[33m" : "\x1b[31m";
}

std::string padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

}  // namespace

std::vector<Finding> diagnose(const MachineFacts& facts) {
  return {judge_programs(facts),      judge_processor(facts), judge_memory(facts),
          judge_shared_memory(facts), judge_devices(facts),   judge_device_libraries(facts),
          judge_limits(facts),        judge_disk(facts.disk), judge_ports(facts),
          judge_clock(facts)};
}

Health worst_health(const std::vector<Finding>& findings) {
  Health worst = Health::kGood;
  for (const Finding& finding : findings) worst = std::max(worst, finding.health);
  return worst;
}

std::string findings_text(const std::vector<Finding>& findings, bool in_colours) {
  constexpr size_t kHealthWidth = 9, kSubjectWidth = 15;
  std::string text;
  for (const Finding& finding : findings) {
    const std::string word = padded(health_word(finding.health), kHealthWidth);
    text += in_colours ? health_colour(finding.health) + word + "\x1b[0m" : word;
    text += padded(finding.subject, kSubjectWidth) + finding.found + "\n";
    if (!finding.advice.empty()) {
      text += std::string(kHealthWidth + kSubjectWidth, ' ') + "-> " + finding.advice + "\n";
    }
  }
  return text;
}

std::string findings_json(const std::vector<Finding>& findings) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"subject", finding.subject},
                    {"health", health_word(finding.health)},
                    {"found", finding.found},
                    {"advice", finding.advice}});
  }
  return json_line({{"health", health_word(worst_health(findings))}, {"findings", std::move(list)}});
}

}  // namespace optserve::cli
