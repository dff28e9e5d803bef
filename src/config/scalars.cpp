// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/scalars.h"

#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace conclave::config {

namespace {

struct SplitNumber {
  std::string digits;   // without underscores and suffix
  double factor = 1.0;  // of the suffix
};

std::optional<SplitNumber> split_number(const std::string& text) {
  SplitNumber split;
  size_t end = text.size();
  while (end > 0 &&
         ((text[end - 1] >= 'A' && text[end - 1] <= 'Z') || (text[end - 1] >= 'a' && text[end - 1] <= 'z'))) {
    --end;
  }
  std::string_view suffix = std::string_view(text).substr(end);
  if (!suffix.empty() && suffix.back() == 'B') suffix.remove_suffix(1);
  static constexpr std::pair<std::string_view, double> kSuffixes[] = {
      {"", 1},     {"k", 1e3},     {"K", 1e3},     {"M", 1e6},     {"G", 1e9},
      {"T", 1e12}, {"Ki", 0x1p10}, {"Mi", 0x1p20}, {"Gi", 0x1p30}, {"Ti", 0x1p40}};
  bool known = false;
  for (const auto& [name, factor] : kSuffixes) {
    if (suffix != name) continue;
    split.factor = factor;
    known = true;
  }
  if (!known) return std::nullopt;
  for (size_t i = 0; i < end; ++i) {
    const bool between_digits = i > 0 && i + 1 < end && text[i - 1] >= '0' && text[i - 1] <= '9' &&
                                text[i + 1] >= '0' && text[i + 1] <= '9';
    if (text[i] == '_' && !between_digits) return std::nullopt;
    if (text[i] != '_') split.digits += text[i];
  }
  if (!split.digits.empty() && split.digits[0] == '+') split.digits.erase(0, 1);
  return split;
}

}  // namespace

std::optional<double> parse_number(const std::string& text) {
  const auto split = split_number(text);
  if (!split || split->digits.empty()) return std::nullopt;
  const char first =
      split->digits[0] == '-' && split->digits.size() > 1 ? split->digits[1] : split->digits[0];
  if ((first < '0' || first > '9') && first != '.') return std::nullopt;  // no "inf", "nan"
  double value = 0;
  const char* end = split->digits.data() + split->digits.size();
  const auto [stop, error] = std::from_chars(split->digits.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  value *= split->factor;
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

std::optional<int64_t> parse_integer(const std::string& text) {
  const auto split = split_number(text);
  if (!split) return std::nullopt;
  int64_t value = 0;
  const char* end = split->digits.data() + split->digits.size();
  const auto [stop, error] = std::from_chars(split->digits.data(), end, value);
  if (error == std::errc() && stop == end && !split->digits.empty()) {
    int64_t scaled = 0;
    if (__builtin_mul_overflow(value, static_cast<int64_t>(split->factor), &scaled)) return std::nullopt;
    return scaled;
  }
  const auto number = parse_number(text);  // 1e6, 0.5M
  if (!number || std::floor(*number) != *number || std::abs(*number) > 0x1p53) return std::nullopt;
  return static_cast<int64_t>(*number);
}

std::optional<bool> parse_boolean(const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

std::string format_number(double value) {
  std::string text = fmt::format("{}", value);
  const auto exponent = text.find('e');
  std::string mantissa = text.substr(0, exponent);
  if (mantissa.find('.') == std::string::npos) mantissa += ".0";
  return exponent == std::string::npos ? mantissa : mantissa + text.substr(exponent);
}

bool needs_quotes(const std::string& text) {
  if (text.empty() || text.front() == ' ' || text.back() == ' ') return true;
  static constexpr std::string_view kWords[] = {"null", "Null",  "NULL", "~",   "true", "false",
                                                "True", "False", "yes",  "no",  "Yes",  "No",
                                                "on",   "off",   "On",   "Off", "y",    "n"};
  for (const auto word : kWords) {
    if (text == word) return true;
  }
  if (parse_number(text)) return true;
  if (std::string_view("-?:,[]{}#&*!|>'\"%@`").find(text.front()) != std::string_view::npos) return true;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\') return true;
    if (c == ',' || c == '[' || c == ']' || c == '{' || c == '}') return true;
    if (c == ':' && (i + 1 == text.size() || text[i + 1] == ' ')) return true;
    if (c == '#' && i > 0 && text[i - 1] == ' ') return true;
  }
  return false;
}

}  // namespace conclave::config
