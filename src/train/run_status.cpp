// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/run_status.h"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/json_reader.h"

namespace conclave::train {

namespace {

constexpr std::array<std::pair<RunState, const char*>, 4> kRunStates{{{RunState::kRunning, "running"},
                                                                      {RunState::kFinished, "finished"},
                                                                      {RunState::kStopped, "stopped"},
                                                                      {RunState::kFailed, "failed"}}};

// An exit reason may quote a file's bytes; STATUS.json must be written all the same.
std::string quote_leniently(const std::string& text) {
  try {
    return json_quote(text);
  } catch (const Error&) {
    std::string ascii;
    for (const char c : text) ascii += static_cast<unsigned char>(c) < 0x80 ? c : '?';
    return json_quote(ascii);
  }
}

}  // namespace

std::string to_string(RunState state) {
  for (const auto& [value, name] : kRunStates) {
    if (value == state) return name;
  }
  throw Error("unknown run state");
}

void write_run_status(const std::filesystem::path& folder, const RunStatus& status) {
  write_file_atomically(
      folder / kStatusFile,
      fmt::format("{{\"state\": \"{}\", \"step\": {}, \"eta_seconds\": {}, \"exit_reason\": {}}}\n",
                  to_string(status.state), status.step,
                  status.eta_seconds ? json_number(*status.eta_seconds) : "null",
                  quote_leniently(status.exit_reason)));
}

std::optional<RunStatus> read_run_status(const std::filesystem::path& folder) {
  const auto path = folder / kStatusFile;
  if (!std::filesystem::exists(path)) return std::nullopt;
  const std::string place = fmt::format("'{}'", path.string());
  const Json json = parse_json(read_file(path), place);
  const JsonReader root(json, place);
  RunStatus status{.step = static_cast<int64_t>(root.at("step").count()),
                   .exit_reason = root.at("exit_reason").text()};
  if (const auto eta = root.at("eta_seconds"); !eta.is_null()) status.eta_seconds = eta.number();
  const std::string& text = root.at("state").text();
  for (const auto& [value, name] : kRunStates) {
    if (text != name) continue;
    status.state = value;
    return status;
  }
  root.at("state").fail("running, finished, stopped or failed");
}

}  // namespace conclave::train
