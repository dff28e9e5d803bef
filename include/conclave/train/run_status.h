// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace conclave::train {

inline constexpr const char* kStatusFile = "STATUS.json";

enum class RunState { kRunning, kFinished, kStopped, kFailed };

struct RunStatus {
  RunState state = RunState::kRunning;
  int64_t step = 0;
  std::string exit_reason = {};  // "" while running; "reached train_iters", "SIGTERM", an error
  std::optional<double> eta_seconds = std::nullopt;  // while running
};

// Replaces STATUS.json atomically. A run that was killed leaves "running": no process holds its lock then.
void write_run_status(const std::filesystem::path& folder, const RunStatus& status);
// Nothing when the folder has none. Throws Error (kData) for a damaged one.
std::optional<RunStatus> read_run_status(const std::filesystem::path& folder);

std::string to_string(RunState state);

}  // namespace conclave::train
