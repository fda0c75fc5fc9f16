#include "cli/doctor/diagnosis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

namespace optserve::cli {
namespace diagnosis_test {

using ::testing::HasSubstr;
using ::testing::Not;

MachineFacts good_machine() {
  MachineFacts facts;
  facts.processor = "A processor";
  facts.cores = 8;
  facts.has_avx2 = true;
  facts.memory_bytes = 64LL << 30;
  facts.memory_available_bytes = 60LL << 30;
  facts.shared_memory_free_bytes = 32LL << 30;
  facts.open_files_max = 65'536;
  facts.gpus = {"NVIDIA H200", "NVIDIA H200"};
  facts.driver = "550.54.15";
  facts.has_cublas = facts.has_nccl = true;
  facts.disk.folder = "/data";
  facts.disk.free_bytes = 100LL << 30;
  facts.disk.sync_ms_median = 0.4;
  facts.disk.sync_ms_worst = 2;
  facts.ports = {5555, 5556};
  facts.is_clock_synchronised = true;
  facts.wall_ms = 1'780'000'000'000;
  return facts;
}

TEST(Diagnosis, AGoodMachineNeedsNoAdvice) {
  const auto findings = diagnose(good_machine());
  EXPECT_EQ(worst_health(findings), Health::kGood);
  for (const Finding& finding : findings) EXPECT_EQ(finding.advice, "") << finding.subject;
  MachineFacts no_gpu = good_machine();
  no_gpu.gpus.clear(), no_gpu.driver.clear(), no_gpu.has_cublas = no_gpu.has_nccl = false;
  EXPECT_EQ(worst_health(diagnose(no_gpu)), Health::kGood);
}

TEST(Diagnosis, EachFaultIsFoundWithWhatToDo) {
  struct Case {
    const char* subject;
    Health health;
    std::function<void(MachineFacts&)> break_it;
    const char* advice;
  };
  const std::vector<Case> cases = {
      {"programs", Health::kProblem, [](auto& f) { f.missing_programs = {"optserve-worker"}; }, "install"},
      {"processor", Health::kWarning, [](auto& f) { f.has_avx2 = false; }, "slower"},
      {"processor", Health::kWarning, [](auto& f) { f.cores = 1; }, "two"},
      {"memory", Health::kWarning, [](auto& f) { f.memory_available_bytes = 100 << 20; }, "end other programs"},
      {"memory", Health::kWarning, [](auto& f) { f.memory_limit_bytes = 512 << 20; }, "raise the limit"},
      {"shared_memory", Health::kProblem, [](auto& f) { f.shared_memory_free_bytes = -1; }, "tmpfs"},
      {"shared_memory", Health::kWarning, [](auto& f) { f.shared_memory_free_bytes = 60 << 20; }, "--shm-size"},
      {"gpus", Health::kProblem, [](auto& f) { f.gpus.clear(); }, "nvidia-smi"},
      {"gpus", Health::kProblem, [](auto& f) { f.driver = "535.1"; }, "550"},
      {"gpu_libraries", Health::kProblem, [](auto& f) { f.has_cublas = false; }, "libcublas"},
      {"gpu_libraries", Health::kProblem, [](auto& f) { f.has_nccl = false; }, "libnccl2"},
      {"limits", Health::kWarning, [](auto& f) { f.open_files_max = 1024; }, "ulimit -n"},
      {"disk", Health::kProblem, [](auto& f) { f.disk.error = "create: Permission denied"; }, "--dir"},
      {"disk", Health::kWarning, [](auto& f) { f.disk.sync_ms_median = 30; }, "SSD"},
      {"disk", Health::kWarning, [](auto& f) { f.disk.free_bytes = 1 << 20; }, "make room"},
      {"ports", Health::kWarning, [](auto& f) { f.ports_in_use = {5556}; }, "--ports auto"},
      {"clock", Health::kWarning, [](auto& f) { f.is_clock_synchronised = false; }, "chrony"},
      {"clock", Health::kProblem, [](auto& f) { f.wall_ms = 0; }, "set it"},
  };
  for (const Case& one : cases) {
    MachineFacts facts = good_machine();
    one.break_it(facts);
    const auto findings = diagnose(facts);
    EXPECT_EQ(worst_health(findings), one.health) << one.subject << ": " << one.advice;
    const auto finding = std::ranges::find(findings, one.subject, &Finding::subject);
    ASSERT_NE(finding, findings.end());
    EXPECT_EQ(finding->health, one.health) << one.subject;
    EXPECT_THAT(finding->advice, HasSubstr(one.advice));
    EXPECT_EQ(std::ranges::count(findings, Health::kGood, &Finding::health), std::ssize(findings) - 1) << one.subject;
  }
}

TEST(Diagnosis, IsTextForPeopleAndJsonForPrograms) {
  MachineFacts facts = good_machine();
  facts.ports_in_use = {5555};
  const auto findings = diagnose(facts);
  EXPECT_THAT(findings_text(findings, false), HasSubstr("warning  ports          in use: 5555\n"));
  EXPECT_THAT(findings_text(findings, false), Not(HasSubstr("\x1b")));
  EXPECT_THAT(findings_text(findings, true), HasSubstr("\x1b[33mwarning"));
  const auto json = nlohmann::json::parse(findings_json(findings));
  EXPECT_EQ(json["health"], "warning");
  EXPECT_EQ(json["findings"].size(), findings.size());
  EXPECT_EQ(json["findings"][8]["subject"], "ports");
}

TEST(Diagnosis, ThisMachineCanBeLookedAt) {
  const SystemClock clock;
  const MachineFacts facts = look_at_machine(testing::TempDir(), clock);
  EXPECT_GT(facts.cores, 0);
  EXPECT_GT(facts.memory_bytes, 0);
  EXPECT_EQ(facts.disk.error, "");
  EXPECT_GT(facts.disk.sync_ms_median, 0);
  EXPECT_GE(facts.disk.sync_ms_worst, facts.disk.sync_ms_median);
  EXPECT_THAT(look_at_machine("/nowhere", clock).disk.error, HasSubstr("/nowhere"));
}

}  // namespace diagnosis_test
}  // namespace optserve::cli
