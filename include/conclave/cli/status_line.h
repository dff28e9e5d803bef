// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "conclave/core/log.h"
#include "conclave/train/trainer.h"

namespace conclave::cli {

// One line about a step, ASCII. `width` 0: whole; else the least important parts go until it fits, and what
// is left is cut. Colours (ANSI) take no width.
std::string status_text(const train::StepReport& report, size_t width, bool colour);

// Of an evaluation: loss and bits per byte, or the loss over hidden tokens.
std::string result_text(const train::EvaluationResult& result);

// "41s", "5m18s", "3h04m"; "?" for what is not finite.
std::string clock_text(double seconds);

struct Terminal {
  bool live = false;    // a terminal that can redraw a line
  bool colour = false;  // and NO_COLOR is not set
  std::function<size_t()> width = [] { return size_t{0}; };
};
// Looks at the descriptor, TERM and NO_COLOR.
Terminal inspect_terminal(int descriptor);

// Writes all of `text`; a closed or full descriptor is no error here, since what a run says is less than the
// run.
void write_quietly(int descriptor, std::string_view text);

// Progress for a person: on a terminal one line that is redrawn, elsewhere a plain line every `interval`
// steps.
class StatusLine {
 public:
  using Write = std::function<void(std::string_view)>;
  StatusLine(Terminal terminal, int64_t interval, Write write);

  ~StatusLine() { finish(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  void step(const train::StepReport& report);
  void evaluation(int64_t step, const train::EvaluationResult& result);
  void message(const std::string& text);  // a line above the live one
  void finish();                          // leaves the last state standing

 private:
  Terminal terminal_;
  int64_t interval_;
  Write write_;
  bool drawn_ = false;  // the cursor stands behind a live line
  double last_drawn_ = -1;
  std::string live_;
};

}  // namespace conclave::cli
