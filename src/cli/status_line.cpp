// SPDX-License-Identifier: Apache-2.0
#include "conclave/cli/status_line.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <vector>

#include <fmt/format.h>

#include "conclave/model/objective.h"

namespace conclave::cli {

namespace {

constexpr double kRedrawSeconds = 0.05;

struct StatusPart {
  std::string text = {};
  int rank = 0;  // the highest goes first when the line is too long
  const char* style = "";
};

std::string short_count(double value) {
  if (!std::isfinite(value)) return "?";
  if (value < 9999.5) return fmt::format("{:.0f}", value);
  return value < 999.5e3 ? fmt::format("{:.1f}k", value / 1e3) : fmt::format("{:.2f}M", value / 1e6);
}

std::vector<StatusPart> status_parts(const train::StepReport& r) {
  constexpr const char* kBold = "\033[1m";
  std::vector<StatusPart> parts = {
      {fmt::format("step {}/{}", r.step, r.num_steps), 0},
      {fmt::format("{} {:.4f}", model::loss_name(r.objective), r.loss), 1, kBold},
      {fmt::format("lr {:.2e}", r.lr), 6},
      {fmt::format("grad norm {:.2f}", r.gradient_norm), 5},
      {fmt::format("{} tok/s", short_count(r.tokens_per_second)), 4}};
  if (model::codes_text(r.objective)) {
    parts.insert(parts.begin() + 2, {fmt::format("{:.3f} bits/byte", r.bits_per_byte), 3});
  }
  if (r.mfu) parts.push_back({fmt::format("MFU {:.1f}%", 100.0 * *r.mfu), 8});
  if (r.load_max_over_mean > 0)
    parts.push_back({fmt::format("load max/mean {:.2f}", r.load_max_over_mean), 7});
  if (r.skipped) parts.push_back({"SKIPPED", 1, kBold});
  parts.push_back({fmt::format("{} left", clock_text(r.seconds_left)), 2});
  return parts;
}

size_t joined_width(const std::vector<StatusPart>& parts) {
  size_t width = 0;
  for (const auto& part : parts) width += part.text.size() + (width > 0 ? 3 : 0);
  return width;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

size_t terminal_width(int descriptor) {
  winsize size{};
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

}  // namespace

std::string clock_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e9) return "?";
  const auto s = static_cast<int64_t>(seconds);
  if (s < 60) return fmt::format("{}s", s);
  return s >= 3600 ? fmt::format("{}h{:02}m", s / 3600, s / 60 % 60)
                   : fmt::format("{}m{:02}s", s / 60, s % 60);
}

std::string result_text(const train::EvaluationResult& r) {
  if (!model::codes_text(r.objective)) {
    return fmt::format("{} {:.4f} over {} hidden tokens", model::loss_name(r.objective), r.loss, r.targets);
  }
  return fmt::format("loss {:.4f}, {:.4f} bits/byte over {} bytes", r.loss, r.bits_per_byte, r.bytes);
}

std::string status_text(const train::StepReport& report, size_t width, bool colour) {
  auto parts = status_parts(report);
  while (width > 0 && parts.size() > 1 && joined_width(parts) > width) {
    parts.erase(std::max_element(parts.begin(), parts.end(),
                                 [](const auto& a, const auto& b) { return a.rank < b.rank; }));
  }
  if (width > 0 && parts.size() == 1) parts[0].text.resize(std::min(parts[0].text.size(), width));
  std::string line;
  for (const auto& part : parts) {
    if (!line.empty()) line += colour ? "\033[2m | \033[0m" : " | ";
    line += colour && *part.style ? fmt::format("{}{}\033[0m", part.style, part.text) : part.text;
  }
  return line;
}

Terminal inspect_terminal(int descriptor) {
  const auto variable = [](const char* name) -> std::string_view {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  Terminal terminal;
  terminal.live = isatty(descriptor) != 0 && variable("TERM") != "dumb";
  terminal.colour = terminal.live && variable("NO_COLOR").empty();
  terminal.width = [descriptor] { return terminal_width(descriptor); };
  return terminal;
}

void write_quietly(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(descriptor, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

StatusLine::StatusLine(Terminal terminal, int64_t interval, Write write)
    : terminal_(std::move(terminal)), interval_(interval), write_(std::move(write)) {}

void StatusLine::step(const train::StepReport& report) {
  if (!terminal_.live) {
    if (report.step % interval_ != 0 && report.step != 1 && report.step != report.num_steps) return;
    write_(status_text(report, 0, false) + "\n");
    return;
  }
  // One column stays free: a full last column makes some terminals wrap.
  const size_t width = terminal_.width();
  live_ = status_text(report, width > 1 ? width - 1 : width, terminal_.colour);
  const double now = steady_seconds();
  if (report.step != report.num_steps && now - last_drawn_ < kRedrawSeconds) return;
  last_drawn_ = now;
  write_(fmt::format("\r\033[K{}", live_));
  drawn_ = true;
}

void StatusLine::evaluation(int64_t step, const train::EvaluationResult& result) {
  message(fmt::format("step {} | held-out: {}", step, result_text(result)));
}

void StatusLine::message(const std::string& text) {
  if (!drawn_) return write_(text + "\n");
  write_(fmt::format("\r\033[K{}\n{}", text, live_));
}

void StatusLine::finish() {
  if (drawn_) write_(fmt::format("\r\033[K{}\n", live_));
  drawn_ = false;
}

}  // namespace conclave::cli
