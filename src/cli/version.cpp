// SPDX-License-Identifier: Apache-2.0
#include <sys/utsname.h>
#include <cstdlib>

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "machine.h"

namespace conclave::cli {

std::string environment_json() {
  utsname system{};
  uname(&system);
  nlohmann::ordered_json json = {{"conclave", CONCLAVE_VERSION},
                                 {"torch", TORCH_VERSION},
                                 {"compiler", __VERSION__},
                                 {"system", fmt::format("{} {}", system.sysname, system.release)},
                                 {"machine", system.machine},
                                 {"cpu", cpu_model(text_of_file("/proc/cpuinfo"))},
                                 {"cpu_capability", at::get_cpu_capability()},
                                 {"cores", allowed_cores()},
                                 {"threads", at::get_num_threads()},
                                 {"environment", nlohmann::ordered_json::object()}};
  for (const char* name : {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "CONCLAVE_CACHE", "ATEN_CPU_CAPABILITY"}) {
    if (const char* value = std::getenv(name)) json["environment"][name] = value;
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void add_version(CLI::App& app, Action& action) {
  app.add_subcommand("version", "Version of the program, and the torch that it was built with.")
      ->callback([&action] {
        action = [] {
          fmt::print("conclave {} (torch {})\n", CONCLAVE_VERSION, TORCH_VERSION);
          return int{kDone};
        };
      });
}

}  // namespace conclave::cli
