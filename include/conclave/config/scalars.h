// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace conclave::config {

// Numbers as configuration files write them: `1_000`, `4M` (k, M, G, T: powers of 1000), `2GB`, `64KiB`,
// `1Mi` (powers of 1024), decimal point, exponent. Independent of the locale. Empty for anything else (a bare
// `2B` too: bytes or billions?), and for overflow, NaN and infinity. Whole numbers may be written `1e6`.
std::optional<int64_t> parse_integer(const std::string& text);
std::optional<double> parse_number(const std::string& text);
std::optional<bool> parse_boolean(const std::string& text);  // true, True, TRUE, false, ...

// Shortest text that reads back to the same double, always with a point, so that YAML 1.1 readers see a
// number: 0.1, 1.0e-08, 3.0.
std::string format_number(double value);

// Whether the text can stand without quotes and is read as one plain word by any YAML reader.
bool is_safe_plain(const std::string& text);

// Whether this string must be quoted so that no YAML 1.1 or 1.2 reader takes it for something else.
bool needs_quotes(const std::string& text);

// The text as a double-quoted YAML scalar on one line.
std::string quote(const std::string& text);

}  // namespace conclave::config
