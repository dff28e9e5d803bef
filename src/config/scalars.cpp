// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/scalars.h"

#include <charconv>
#include <cmath>
#include <string_view>

#include <fmt/format.h>

namespace conclave::config {

namespace {

struct Unit {
  std::string_view name;
  int decimal_exponent;
  double binary_factor;
};
constexpr Unit kUnits[] = {{"", 0, 1},        {"k", 3, 1},      {"K", 3, 1},       {"M", 6, 1},
                           {"G", 9, 1},       {"T", 12, 1},     {"Ki", 0, 0x1p10}, {"Mi", 0, 0x1p20},
                           {"Gi", 0, 0x1p30}, {"Ti", 0, 0x1p40}};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

struct SplitNumber {
  std::string
      digits;  // decimal text without underscores, plus sign and unit; decimal units are in its exponent
  bool whole = false;  // no point and no exponent before the unit
  int decimal_exponent = 0;
  double binary_factor = 1.0;
};

// A bare B is no unit: it would be bytes to some and billions to others.
const Unit* find_unit(std::string_view name) {
  if (name.size() > 1 && name.back() == 'B') name.remove_suffix(1);
  for (const auto& unit : kUnits) {
    if (unit.name == name) return &unit;
  }
  return nullptr;
}

std::optional<SplitNumber> split_number(const std::string& text) {
  size_t end = text.size();
  while (end > 0 && is_letter(text[end - 1])) --end;
  const Unit* unit = find_unit(std::string_view(text).substr(end));
  if (!unit) return std::nullopt;
  SplitNumber split{
      .digits = "", .decimal_exponent = unit->decimal_exponent, .binary_factor = unit->binary_factor};
  split.whole = true;
  for (size_t i = 0; i < end; ++i) {
    const char c = text[i];
    if (c == '_') {
      if (i == 0 || i + 1 >= end || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) return std::nullopt;
      continue;
    }
    if (c == '+' && i == 0) continue;
    if (c == '-' && split.digits.empty() && i > 0) return std::nullopt;
    if (!is_digit(c) && !(c == '-' && split.digits.empty() && i == 0)) split.whole = false;
    split.digits += c;
  }
  const size_t first = split.digits.size() > 1 && split.digits[0] == '-' ? 1 : 0;
  const bool starts_like_a_number =  // not "inf", "nan", "+-1"
      first < split.digits.size() && (is_digit(split.digits[first]) || split.digits[first] == '.');
  return starts_like_a_number ? std::optional(split) : std::nullopt;
}

template <class T>
std::optional<T> from_text(const std::string& text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end ? std::optional(value) : std::nullopt;
}

// The decimal unit goes into the exponent, so that 4.35M is rounded once: it is exactly 4350000.
std::optional<double> number_of(const SplitNumber& split) {
  const size_t e = split.digits.find_first_of("eE");
  int exponent = 0;
  if (e != std::string::npos) {
    const size_t sign = e + 1 < split.digits.size() && split.digits[e + 1] == '+' ? 1 : 0;
    const auto written = from_text<int>(split.digits.substr(e + 1 + sign));
    if (!written || (sign == 1 && *written < 0) || std::abs(*written) > 100000) return std::nullopt;
    exponent = *written;
  }
  const auto value =
      from_text<double>(fmt::format("{}e{}", split.digits.substr(0, e), exponent + split.decimal_exponent));
  if (!value) return std::nullopt;
  const double scaled = *value * split.binary_factor;
  return std::isfinite(scaled) ? std::optional(scaled) : std::nullopt;
}

}  // namespace

std::optional<double> parse_number(const std::string& text) {
  const auto split = split_number(text);
  return split ? number_of(*split) : std::nullopt;
}

std::optional<int64_t> parse_integer(const std::string& text) {
  const auto split = split_number(text);
  if (!split) return std::nullopt;
  if (split->whole) {
    const auto value = from_text<int64_t>(split->digits);
    auto factor = static_cast<int64_t>(split->binary_factor);
    for (int i = 0; i < split->decimal_exponent; ++i) factor *= 10;
    int64_t scaled = 0;
    if (!value || __builtin_mul_overflow(*value, factor, &scaled)) return std::nullopt;
    return scaled;
  }
  const auto number = number_of(*split);  // 1e6, 0.5M
  if (!number || std::floor(*number) != *number || std::abs(*number) > 0x1p53) return std::nullopt;
  return static_cast<int64_t>(*number);
}

std::optional<bool> parse_boolean(const std::string& text) {
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  return std::nullopt;
}

std::string format_number(double value) {
  std::string text = fmt::format("{}", value);
  const auto exponent = text.find('e');
  std::string mantissa = text.substr(0, exponent);
  if (mantissa.find('.') == std::string::npos) mantissa += ".0";
  return exponent == std::string::npos ? mantissa : mantissa + text.substr(exponent);
}

}  // namespace conclave::config
