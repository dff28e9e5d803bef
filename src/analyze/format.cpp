// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/format.h"

#include <cmath>

#include <fmt/format.h>

#include "conclave/train/json_reader.h"

namespace conclave::analyze {

namespace {

// Length of the valid UTF-8 character (RFC 3629) at the start of `text`, 0 if there is none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto follows = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned first = byte(0);
  if (first < 0x80) return text.empty() ? 0 : 1;
  if (first >= 0xC2 && first < 0xE0) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first < 0xF0) {
    const bool overlong = first == 0xE0 && byte(1) < 0xA0, surrogate = first == 0xED && byte(1) > 0x9F;
    return follows(1) && follows(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first < 0xF5) {
    const bool overlong = first == 0xF0 && byte(1) < 0x90, beyond = first == 0xF4 && byte(1) > 0x8F;
    return follows(1) && follows(2) && follows(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

bool is_control(unsigned char c) {
  return c < 0x20 || c == 0x7F;
}

// U+2400 block: a picture of a control character.
std::string control_picture(unsigned char c) {
  const unsigned code = c == 0x7F ? 0x2421 : 0x2400u + c;
  return {static_cast<char>(0xE2), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
          static_cast<char>(0x80 | (code & 0x3F))};
}

// U+0080 to U+009F, and U+FFFE and U+FFFF, which XML does not have or discourages.
bool is_unprintable(std::string_view character) {
  return (character[0] == '\xC2' && static_cast<unsigned char>(character[1]) < 0xA0) ||
         character == "\xEF\xBF\xBE" || character == "\xEF\xBF\xBF";
}

std::string superscript(int value) {
  static const char* const digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string text = value < 0 ? "⁻" : "";
  for (const char c : std::to_string(std::abs(value))) text += digits[c - '0'];
  return text;
}

}  // namespace

std::string escape(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const auto c = static_cast<unsigned char>(text[0]);
    if (length == 0) {
      result += "\xEF\xBF\xBD";
    } else if (length > 1) {
      const auto character = text.substr(0, length);
      result += is_unprintable(character) ? "\xEF\xBF\xBD" : std::string(character);
    } else if (c == '&') {
      result += "&amp;";
    } else if (c == '<') {
      result += "&lt;";
    } else if (c == '>') {
      result += "&gt;";
    } else if (c == '"') {
      result += "&quot;";
    } else if (c == '\'') {
      result += "&#39;";
    } else if (is_control(c) && c != '\n' && c != '\t') {
      result += control_picture(c);
    } else {
      result += text[0];
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return result;
}

std::string visible_token(std::string_view bytes) {
  if (bytes.empty()) return "‹document›";
  std::string result;
  while (!bytes.empty()) {
    const size_t length = utf8_length(bytes);
    const auto c = static_cast<unsigned char>(bytes[0]);
    if (length == 0 || (length > 1 && is_unprintable(bytes.substr(0, length)))) {
      result += fmt::format("\\x{:02X}", c);
      bytes.remove_prefix(1);
      continue;
    }
    if (c == ' ') {
      result += "␣";
    } else if (c == '\n') {
      result += "↵";
    } else if (c == '\t') {
      result += "⇥";
    } else if (is_control(c)) {
      result += control_picture(c);
    } else {
      result += bytes.substr(0, length);
    }
    bytes.remove_prefix(length);
  }
  return result;
}

std::string readable(double value, int digits) {
  if (!std::isfinite(value)) return "not finite";
  if (value == 0.0) return "0";
  const double magnitude = std::abs(value);
  if (magnitude >= 1e-3 && magnitude < 1e6) {
    // Digits of the rounded value, so that 9.9999 is "10.00" and not "9.9999".
    const int before = static_cast<int>(std::floor(std::log10(magnitude))) + 1;
    return fmt::format("{:.{}f}", value, std::max(digits - before, 0));
  }
  int exponent = static_cast<int>(std::floor(std::log10(magnitude)));
  std::string mantissa = fmt::format("{:.{}f}", value / std::pow(10.0, exponent), std::max(digits - 2, 0));
  if (mantissa.starts_with("10") || mantissa.starts_with("-10")) {
    mantissa = fmt::format("{:.{}f}", value / std::pow(10.0, ++exponent), std::max(digits - 2, 0));
  }
  return mantissa + power_of_ten(exponent);
}

std::string power_of_ten(int exponent) {
  return fmt::format("×10{}", superscript(exponent));
}

std::string fixed(double value, int decimals) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, decimals) : "not finite";
}

std::string grouped(int64_t value) {
  const std::string digits = std::to_string(value);
  std::string result;
  for (size_t i = 0; i < digits.size(); ++i) {
    const bool follows_digit = i > 0 && digits[i - 1] != '-';
    if (follows_digit && (digits.size() - i) % 3 == 0) result += ',';
    result += digits[i];
  }
  return result;
}

std::string abbreviated(double value) {
  if (!std::isfinite(value)) return "not finite";
  static const char* const names[] = {"", " k", " M", " G", " T"};
  size_t unit = 0;
  double scaled = value;
  while (std::abs(scaled) >= 999.5 && unit < 4) scaled /= 1000.0, ++unit;
  const int decimals = unit == 0 ? 0 : std::abs(scaled) < 9.95 ? 2 : std::abs(scaled) < 99.5 ? 1 : 0;
  return fmt::format("{:.{}f}{}", scaled, decimals, names[unit]);
}

std::string percent(double share) {
  if (!std::isfinite(share)) return "not finite";
  const double value = 100.0 * share;
  return fmt::format("{:.{}f} %", value, std::abs(value) < 9.95 && value != 0.0 ? 1 : 0);
}

std::string duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "not known";
  const auto s = static_cast<int64_t>(std::llround(seconds));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

std::string data_element(double value, const std::string& shown) {
  return fmt::format("<data value=\"{}\">{}</data>", train::json_number(value), escape(shown));
}

}  // namespace conclave::analyze
