// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/report.h"

#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"

namespace conclave::cli {

namespace {

struct ReportArguments {
  std::vector<std::string> runs;
  std::string output;
};

// Beside the run it tells of, or in the current folder when it tells of several.
std::filesystem::path report_path(const ReportArguments& arguments,
                                  const std::vector<analyze::RunData>& runs) {
  if (!arguments.output.empty()) return std::filesystem::absolute(arguments.output);
  return runs.size() == 1 ? runs[0].folder / "report.html" : std::filesystem::absolute("report.html");
}

int report_command(const ReportArguments& arguments) {
  std::vector<analyze::RunData> runs;
  for (const auto& folder : arguments.runs) runs.push_back(analyze::read_run(folder));
  const auto path = report_path(arguments, runs);
  if (std::filesystem::is_directory(path)) {
    throw ConfigError(fmt::format("--output '{}' is a folder; name a file", path.string()));
  }
  if (!std::filesystem::is_directory(path.parent_path())) {
    throw ConfigError(fmt::format("--output: there is no folder '{}'", path.parent_path().string()));
  }
  write_file_atomically(path, analyze::render_report(runs));
  fmt::print("{}\n", path.string());
  return kDone;
}

}  // namespace

void add_report(CLI::App& app, Action& action) {
  auto* sub = app.add_subcommand("report", "One HTML page about a run, or about several side by side.");
  auto arguments = std::make_shared<ReportArguments>();
  sub->add_option("run", arguments->runs, "Run folders (runs/NAME).")->required();
  sub->add_option("--output,-o", arguments->output,
                  "File to write (default: RUN/report.html; for several runs ./report.html).");
  sub->footer(
      "The page is one file without scripts or outside resources; its path is printed. A run may still be "
      "going.\n"
      "Examples:\n  conclave report runs/quickstart\n"
      "  conclave report runs/moe runs/dense --output compare.html");
  sub->callback([&action, arguments] { action = [arguments] { return report_command(*arguments); }; });
}

}  // namespace conclave::cli
