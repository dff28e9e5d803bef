// SPDX-License-Identifier: Apache-2.0
#include "conclave/cli/doctor.h"

#include <gtest/gtest.h>

#include "conclave/train/json_reader.h"

namespace {

using namespace conclave;
using namespace conclave::cli;

std::string cpuinfo(const std::string& flags) {
  return "processor\t: 0\nmodel name\t: Example 9000\nflags\t\t: fpu sse2 " + flags + "\n\nprocessor\t: 1\n";
}

TEST(Doctor, VersionsAreComparedByNumberAndFoundInWhatToolsPrint) {
  EXPECT_TRUE(version_at_least("12.2.0", "12.0"));
  EXPECT_TRUE(version_at_least("3.25", "3.25.0"));
  EXPECT_FALSE(version_at_least("3.9", "3.25"));
  const auto tool = [](const std::string& text) { return judge_tool("cmake", text, "3.25", "cmake"); };
  EXPECT_EQ(tool("cmake version 3.25.1\n\nCMake suite").health, Health::kOk);
  EXPECT_EQ(tool("cmake version 3.25.1\n\nCMake suite").value, "3.25.1");
  EXPECT_EQ(judge_tool("compiler", "c++ (Debian 12.2.0-14) 12.2.0\n", "12.0", "g++").value, "12.2.0");
  EXPECT_EQ(tool("cmake version 3.9.6").health, Health::kWarning);
  EXPECT_EQ(tool("").health, Health::kWarning);
  EXPECT_EQ(tool("no number").health, Health::kWarning);
}

TEST(Doctor, CpuFeaturesSayWhatBf16IsWorth) {
  EXPECT_EQ(judge_cpu(cpuinfo("avx2 avx512f avx512_bf16 amx_bf16")).health, Health::kOk);
  EXPECT_NE(judge_cpu(cpuinfo("avx2 avx512f avx512_bf16 amx_bf16")).value.find("AMX"), std::string::npos);
  EXPECT_EQ(judge_cpu(cpuinfo("avx2 avx512f avx512_bf16")).health, Health::kOk);
  EXPECT_EQ(judge_cpu(cpuinfo("avx2 avx512f")).health, Health::kNote);
  EXPECT_EQ(judge_cpu(cpuinfo("avx2")).health, Health::kNote);
  EXPECT_EQ(judge_cpu(cpuinfo("")).health, Health::kWarning);
  EXPECT_EQ(judge_cpu("").health, Health::kWarning);
  EXPECT_EQ(judge_cpu("Features\t: fp asimd bf16\n").health, Health::kOk) << "Arm";
  EXPECT_NE(judge_cpu(cpuinfo("avx2")).value.find("Example 9000"), std::string::npos);
}

TEST(Doctor, MoreThreadsThanCoresIsAWarningWithTheNumberToSet) {
  EXPECT_EQ(judge_threads({.online = 8, .allowed = 8}).health, Health::kOk);
  EXPECT_EQ(judge_threads({.online = 8, .allowed = 2, .omp_num_threads = "2"}).health, Health::kOk);
  const auto many = judge_threads({.online = 8, .allowed = 3, .omp_num_threads = "8"});
  EXPECT_EQ(many.health, Health::kWarning);
  EXPECT_EQ(many.remedy, "export OMP_NUM_THREADS=3");
  const auto quota = judge_threads({.online = 64, .allowed = 64, .quota = 1.5});
  EXPECT_EQ(quota.remedy, "export OMP_NUM_THREADS=1");
  EXPECT_EQ(judge_threads({.online = 4, .allowed = 4, .omp_num_threads = "two"}).health, Health::kWarning);
  EXPECT_EQ(parse_cpu_quota("150000 100000\n"), 1.5);
  EXPECT_FALSE(parse_cpu_quota("max 100000\n").has_value());
  EXPECT_FALSE(parse_cpu_quota("").has_value());
}

TEST(Doctor, MemoryHeedsTheControlGroup) {
  const std::string meminfo = "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n";
  EXPECT_EQ(judge_memory(meminfo, {}).health, Health::kOk);
  EXPECT_EQ(judge_memory(meminfo, uint64_t{1} << 30).health, Health::kWarning);
  EXPECT_EQ(judge_memory("MemTotal: 16000000 kB\nMemAvailable: 800000 kB\n", {}).health, Health::kWarning);
  EXPECT_EQ(judge_memory("", {}).health, Health::kNote);
}

TEST(Doctor, AFullOrReadOnlyDiskFailsAndAShortOneWarns) {
  const auto disk = [](bool writable, uint64_t free) {
    return judge_disk("cache", {.path = "/c", .writable = writable, .free_bytes = free}, 1000, "set X")
        .health;
  };
  EXPECT_EQ(disk(true, 1000), Health::kOk);
  EXPECT_EQ(disk(true, 999), Health::kWarning);
  EXPECT_EQ(disk(true, 49), Health::kFail);
  EXPECT_EQ(disk(false, 5000), Health::kFail);
}

TEST(Doctor, EveryFindingThatIsNotOkHasARemedyAndOnlyAFailureFails) {
  std::vector<Finding> findings = {
      judge_tool("ninja", "", "1.10", "ninja-build"),
      judge_tool("ninja", "1.2", "1.10", "ninja-build"),
      judge_cpu(cpuinfo("avx2")),
      judge_cpu(cpuinfo("avx512f")),
      judge_cpu(""),
      judge_threads({.online = 1, .allowed = 1, .omp_num_threads = "9"}),
      judge_threads({.online = 1, .allowed = 1, .omp_num_threads = ""}),
      judge_memory("", {}),
      judge_memory("MemTotal: 5 kB\n", {}),
      judge_disk("d", {.path = "/", .writable = true, .free_bytes = 99}, 100, "go")};
  for (const auto& f : findings) {
    EXPECT_NE(f.health, Health::kOk) << f.name << " " << f.value;
    EXPECT_FALSE(f.remedy.empty()) << f.name << " " << f.value;
  }
  EXPECT_EQ(doctor_exit_code(findings), 0);
  findings.push_back(judge_disk("d", {.path = "/", .writable = false}, 1, "go"));
  EXPECT_EQ(doctor_exit_code(findings), 1);
}

TEST(Doctor, JsonIsStrictAndHoldsTheSame) {
  const std::vector<Finding> findings = {{"a", Health::kOk, "with \"quotes\"", ""},
                                         {"b", Health::kFail, "x", "do"}};
  const auto json = train::parse_json(render_findings_json(findings), "doctor");
  const auto items = train::JsonReader(json, "doctor").items();
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].at("value").text(), "with \"quotes\"");
  EXPECT_TRUE(items[0].at("remedy").is_null());
  EXPECT_EQ(items[1].at("health").text(), "fail");
  const auto text = render_findings(findings);
  EXPECT_NE(text.find("fail     b  x\n            -> do\n"), std::string::npos) << text;
}

}  // namespace
