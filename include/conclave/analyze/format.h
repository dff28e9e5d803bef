// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

// Text of a report: escaping and numbers for people. Nothing depends on the locale.
namespace conclave::analyze {

// Safe inside XML text and quoted attributes, whatever the bytes: markup characters become entities, control
// characters other than line feed and tab their visible picture, bytes that are no UTF-8 U+FFFD.
std::string escape(std::string_view text);

// One token for people, not yet escaped: the space and control characters as symbols, invalid bytes as \xHH,
// a document mark (no bytes) as a sign of its own.
std::string visible_token(std::string_view bytes);

// "4.312", "0.0123", "1.2×10⁻⁵": `digits` significant ones; "not finite" for NaN and infinities.
std::string readable(double value, int digits = 4);
std::string power_of_ten(int exponent);  // "×10⁻⁵"
std::string fixed(double value, int decimals);
// "16,384,000"
std::string grouped(int64_t value);
// "941", "48.2 k", "16.4 M"
std::string abbreviated(double value);
std::string percent(double share);     // "12.3 %"
std::string duration(double seconds);  // "41 s", "5 min 18 s", "3 h 04 min"

// <data value="EXACT">shown</data>: what is read by machines keeps every digit.
std::string data_element(double value, const std::string& shown);

}  // namespace conclave::analyze
