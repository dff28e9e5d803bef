// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace conclave::config {

// Numbers as configuration files write them: `1_000`, `4M` (k, M, G, T: powers of 1000), `2GB`, `64KiB`,
// `1Mi` (powers of 1024), decimal point, exponent. Independent of the locale. Empty for anything else, and
// for overflow, NaN and infinity.
std::optional<int64_t> parse_integer(const std::string& text);
std::optional<double> parse_number(const std::string& text);
std::optional<bool> parse_boolean(const std::string& text);  // true, false

// Shortest text that reads back to the same double, always with a point or none of the exponent forms that
// YAML 1.1 takes for a string: 0.1, 1.0e-08, 3.0.
std::string format_number(double value);

// Whether a plain (unquoted) word would be read as something else than this string.
bool needs_quotes(const std::string& text);

}  // namespace conclave::config
