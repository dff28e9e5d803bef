// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// `conclave doctor`: what it finds on a machine, judged by functions of plain texts and numbers.
namespace conclave::cli {

enum class Health {
  kOk,
  kNote,     // absent or slow, and fine without
  kWarning,  // works, worse than it could
  kFail      // training or building cannot work
};

struct Finding {
  std::string name = {};
  Health health = Health::kOk;
  std::string value = {};   // what was found
  std::string remedy = {};  // one thing to do; always there unless health is kOk
};

// `version_text`: what `tool --version` printed, "" when the tool did not run. The first number with a point
// in it is the version; `minimum` like "3.25".
Finding judge_tool(const std::string& name, const std::string& version_text, const std::string& minimum,
                   const std::string& package);
bool version_at_least(const std::string& version, const std::string& minimum);

// `cpuinfo`: /proc/cpuinfo. Says what the vector units mean for bf16.
Finding judge_cpu(const std::string& cpuinfo);

struct ThreadFacts {
  int online = 0;                                   // cores of the machine
  int allowed = 0;                                  // that this process may run on
  std::optional<double> quota = {};                 // of the control group, in cores
  std::optional<std::string> omp_num_threads = {};  // as set in the environment
};
Finding judge_threads(const ThreadFacts& facts);

// `meminfo`: /proc/meminfo; `limit`: of the control group, in bytes.
Finding judge_memory(const std::string& meminfo, std::optional<uint64_t> limit);

struct DiskFacts {
  std::string path = {};
  bool writable = false;
  uint64_t free_bytes = 0;
};
Finding judge_disk(const std::string& name, const DiskFacts& facts, uint64_t wanted_bytes,
                   const std::string& how_to_move);

// "max 100000" or "200000 100000" of cpu.max: cores, or nothing without a limit.
std::optional<double> parse_cpu_quota(const std::string& cpu_max);

std::string render_findings(const std::vector<Finding>& findings);
std::string render_findings_json(const std::vector<Finding>& findings);
// 1 when something necessary is missing, else 0.
int doctor_exit_code(const std::vector<Finding>& findings);

}  // namespace conclave::cli
