// SPDX-License-Identifier: Apache-2.0
// Gathers what doctor_judge.cpp judges: runs tools, reads /proc and asks the file systems.
#include "conclave/cli/doctor.h"

#include <dlfcn.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include "commands.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/data/corpus.h"
#include "conclave/ops/kernel_table.h"
#include "machine.h"

namespace conclave::cli {

namespace {

std::string output_of(const std::string& command) {
  FILE* pipe = popen(fmt::format("LC_ALL=C {} 2>/dev/null", command).c_str(), "r");
  if (!pipe) return "";
  std::string text;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
  return pclose(pipe) == 0 ? text : "";
}

bool library_loads(const char* name) {
  void* handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
  if (handle) dlclose(handle);
  return handle != nullptr;
}

Finding torch_finding() {
  std::istringstream maps(text_of_file("/proc/self/maps"));
  std::string where = "statically linked or not told by /proc";
  for (std::string line; std::getline(maps, line);) {
    const size_t at = line.find('/');
    if (at != std::string::npos && line.ends_with("/libtorch_cpu.so")) where = line.substr(at);
  }
  return {"torch", Health::kOk, fmt::format("{} at {}", TORCH_VERSION, where)};
}

Finding cuda_finding() {
  const bool driver = library_loads("libcuda.so.1");
  const std::string toolkit = output_of("nvcc --version");
  const auto release = toolkit.find("release ");
  const std::string value = fmt::format(
      "driver {}, toolkit {}", driver ? "found" : "not found",
      release == std::string::npos ? "not found"
                                   : toolkit.substr(release + 8, toolkit.find(',', release) - release - 8));
  const auto absence = ops::absence_of(c10::DeviceType::CUDA);
  if (!absence.empty())
    return {"CUDA", Health::kNote, value, "nothing to do; training uses the CPU: " + absence};
  const int count = c10::impl::getDeviceGuardImpl(c10::DeviceType::CUDA)->deviceCount();
  return {"CUDA", Health::kOk, fmt::format("{}, {} GPUs", value, count)};
}

Finding nccl_finding() {
  return {"NCCL", Health::kNote, library_loads("libnccl.so.2") ? "found" : "not found",
          "nothing to do: ranks on GPUs need it, others do not"};
}

Finding threads_finding() {
  ThreadFacts facts{.online = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN))};
  const int allowed = allowed_cores();
  facts.allowed = allowed > 0 ? allowed : facts.online;
  facts.quota = parse_cpu_quota(text_of_file("/sys/fs/cgroup/cpu.max"));
  if (const char* threads = std::getenv("OMP_NUM_THREADS")) facts.omp_num_threads = threads;
  return judge_threads(facts);
}

Finding memory_finding() {
  std::optional<uint64_t> limit;
  std::istringstream text(text_of_file("/sys/fs/cgroup/memory.max"));
  if (uint64_t bytes = 0; text >> bytes) limit = bytes;
  return judge_memory(text_of_file("/proc/meminfo"), limit);
}

// Of the folder, or of the nearest one above it that exists.
DiskFacts disk_facts(const std::filesystem::path& folder) {
  std::filesystem::path existing = std::filesystem::absolute(folder);
  std::error_code ignored;
  while (!std::filesystem::exists(existing, ignored) && existing.has_relative_path())
    existing = existing.parent_path();
  DiskFacts facts{.path = folder.string(), .writable = access(existing.c_str(), W_OK) == 0};
  struct statvfs space {};
  if (statvfs(existing.c_str(), &space) == 0) facts.free_bytes = uint64_t{space.f_bavail} * space.f_frsize;
  return facts;
}

std::vector<Finding> cache_findings() {
  std::filesystem::path cache;
  try {
    cache = cache_directory();
  } catch (const Error& error) {
    return {{"cache", Health::kFail, error.what(), "export CONCLAVE_CACHE=FOLDER"}};
  }
  std::vector<Finding> findings = {
      judge_disk("cache", disk_facts(cache), uint64_t{4} << 30, "set CONCLAVE_CACHE to another folder")};
  std::vector<std::string> corpora;
  std::error_code none;
  for (const auto& item : std::filesystem::directory_iterator(data::corpora_directory(), none)) {
    if (item.is_directory(none)) corpora.push_back(item.path().filename().string());
  }
  if (corpora.empty()) {
    findings.push_back({"data", Health::kNote, "no corpus in the cache",
                        "conclave data build domains4 makes the default one (training does it too)"});
  } else {
    findings.push_back({"data", Health::kOk, fmt::format("{}", fmt::join(corpora, ", "))});
  }
  return findings;
}

std::vector<Finding> examine_machine() {
  std::vector<Finding> findings = {judge_tool("compiler", output_of("c++ --version"), "12.0", "g++"),
                                   judge_tool("cmake", output_of("cmake --version"), "3.25", "cmake"),
                                   judge_tool("ninja", output_of("ninja --version"), "1.10", "ninja-build"),
                                   torch_finding(),
                                   cuda_finding(),
                                   nccl_finding(),
                                   judge_cpu(text_of_file("/proc/cpuinfo")),
                                   threads_finding(),
                                   memory_finding()};
  for (auto& finding : cache_findings()) findings.push_back(std::move(finding));
  findings.push_back(judge_disk("output", disk_facts("runs"), uint64_t{2} << 30,
                                "set run.output_dir to a folder on another disk"));
  return findings;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto* sub =
      app.add_subcommand("doctor", "Looks at the machine: tools, torch, CPU, threads, memory, disk, data.");
  auto json = std::make_shared<bool>(false);
  sub->add_flag("--json", *json, "A JSON list of {name, health, value, remedy}, for bug reports.");
  sub->footer(
      "Health: ok; note (absent or slow, and fine without); warning; fail (necessary and missing).\n"
      "Exit code 1 if something fails.\nExamples:\n  conclave doctor\n  conclave doctor --json");
  sub->callback([&action, json] {
    action = [json] {
      const auto findings = examine_machine();
      fmt::print("{}", *json ? render_findings_json(findings) : render_findings(findings));
      return doctor_exit_code(findings);
    };
  });
}

}  // namespace conclave::cli
