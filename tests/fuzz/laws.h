// SPDX-License-Identifier: Apache-2.0
// What holds for any bytes at all that a reader is given. Each function says whether the input was accepted,
// and throws LawBroken, or lets anything else than the reader's own error out, when the reader is wrong. The
// tests feed them seeded mutations; the preset `fuzz` feeds them what libFuzzer finds.
#pragma once
#include <stdexcept>
#include <string>

namespace conclave::fuzz {

struct LawBroken : std::logic_error {
  using std::logic_error::logic_error;
};

inline void require(bool holds, const std::string& law) {
  if (!holds) throw LawBroken(law);
}

// YAML: refused by ConfigError with the position, or read; then its dump reads back to the same dump.
bool yaml_law(const std::string& text);
// safetensors: refused as bad data, or each tensor lies inside the file with the size of its dtype and shape.
bool safetensors_law(const std::string& bytes);
// A corpus in jsonl: refused as bad data with file and line, or each document is UTF-8, with its label.
bool jsonl_law(const std::string& text);
// metrics.jsonl: refused as bad data, or rising steps; reading what a rewind left gives the steps up to it.
bool metrics_law(const std::string& text);

}  // namespace conclave::fuzz
