// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/json_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "conclave/core/error.h"

namespace conclave::train {

namespace {

[[noreturn]] void fail_json(const std::string& where, const std::string& problem) {
  throw Error(fmt::format("{}: {}", where, problem), Error::Kind::kData);
}

// Builds the tree out of the parser's events and refuses what the library's own tree would let pass.
class JsonTreeBuilder {
 public:
  JsonTreeBuilder(const std::string& where, const JsonLimits& limits) : where_(where), limits_(limits) {}

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(int64_t value) { return add(value); }
  bool number_unsigned(uint64_t value) { return add(value); }
  bool number_float(double, const std::string& token) {
    // The parser converts through the C locale of the host program; the digits themselves do not depend on
    // it, only the sign between them does.
    std::string digits;
    for (const char c : token) {
      const bool kept = (c >= '0' && c <= '9') || c == '+' || c == '-' || c == 'e' || c == 'E';
      digits += kept ? c : '.';
    }
    double value = 0.0;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (result.ec != std::errc() || result.ptr != digits.data() + digits.size()) {
      fail_json(where_, fmt::format("the number {} does not fit a double", digits));
    }
    return add(value);
  }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(nlohmann::json::binary_t&) { return false; }  // no such thing in text
  bool start_object(size_t) { return open<Json::Map>(); }
  bool start_array(size_t) { return open<Json::List>(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    std::get<Json::Map>(open_.back()->value).emplace_back().key = std::move(name);
    return true;
  }
  bool end_object() {
    std::vector<const std::string*> keys;
    for (const auto& member : std::get<Json::Map>(open_.back()->value)) keys.push_back(&member.key);
    std::sort(keys.begin(), keys.end(), [](auto a, auto b) { return *a < *b; });
    const auto twice = std::adjacent_find(keys.begin(), keys.end(), [](auto a, auto b) { return *a == *b; });
    if (twice != keys.end()) fail_json(where_, fmt::format("the key {} stands twice", json_quote(**twice)));
    return close();
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    fail_json(where_, fmt::format("not valid JSON at byte {}", position == 0 ? 0 : position - 1));
  }

  Json take() { return std::move(root_); }

 private:
  template <class T>
  bool add(T value) {
    next_place().value.emplace<T>(std::move(value));
    return true;
  }
  template <class T>
  bool open() {
    if (open_.size() == limits_.depth) fail_json(where_, fmt::format("nested deeper than {}", limits_.depth));
    Json& place = next_place();
    place.value.emplace<T>();
    open_.push_back(&place);
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  // A parent is not touched while one of its children is open, so the pointers in open_ stay valid.
  Json& next_place() {
    if (++num_values_ > limits_.values) fail_json(where_, fmt::format("more than {} values", limits_.values));
    if (open_.empty()) return root_;
    if (auto* list = std::get_if<Json::List>(&open_.back()->value)) return list->emplace_back();
    return std::get<Json::Map>(open_.back()->value).back().value;
  }

  const std::string& where_;
  const JsonLimits& limits_;
  Json root_;
  std::vector<Json*> open_;
  size_t num_values_ = 0;
};

const char* kind_of_json(const Json& json) {
  static constexpr const char* kNames[] = {"null",     "a boolean", "a number", "a negative number",
                                           "a number", "a string",  "a list",   "a map"};
  return kNames[json.value.index()];
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  // The parser takes a NUL for the end of its input and would accept whatever follows.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    fail_json(where, fmt::format("not valid JSON at byte {}", nul));
  }
  if (text.substr(0, 3) == "\xEF\xBB\xBF")
    fail_json(where, "starts with a byte order mark; save it without one");
  JsonTreeBuilder builder(where, limits);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

void JsonReader::fail(const std::string& expected) const {
  fail_json(place_, fmt::format("expected {}, found {}", expected, kind_of_json(*json_)));
}

std::optional<JsonReader> JsonReader::find(std::string_view key) const {
  const auto* map = std::get_if<Json::Map>(&json_->value);
  if (!map) fail("a map");
  for (const auto& member : *map) {
    if (member.key == key) return JsonReader(member.value, fmt::format("{}.{}", place_, key));
  }
  return std::nullopt;
}

JsonReader JsonReader::at(std::string_view key) const {
  auto found = find(key);
  if (!found) fail_json(place_, fmt::format("the key '{}' is missing", key));
  return *found;
}

std::vector<JsonReader> JsonReader::items() const {
  const auto* list = std::get_if<Json::List>(&json_->value);
  if (!list) fail("a list");
  std::vector<JsonReader> result;
  for (size_t i = 0; i < list->size(); ++i) result.emplace_back((*list)[i], fmt::format("{}.{}", place_, i));
  return result;
}

std::vector<std::pair<std::string, JsonReader>> JsonReader::members() const {
  const auto* map = std::get_if<Json::Map>(&json_->value);
  if (!map) fail("a map");
  std::vector<std::pair<std::string, JsonReader>> result;
  for (const auto& member : *map) {
    result.emplace_back(member.key, JsonReader(member.value, fmt::format("{}.{}", place_, member.key)));
  }
  return result;
}

const std::string& JsonReader::text() const {
  const auto* value = std::get_if<std::string>(&json_->value);
  if (!value) fail("a string");
  return *value;
}

uint64_t JsonReader::count(uint64_t limit) const {
  const auto* value = std::get_if<uint64_t>(&json_->value);
  if (!value) fail("a whole number >= 0");
  if (*value > limit) fail_json(place_, fmt::format("{} is larger than {}", *value, limit));
  return *value;
}

double JsonReader::number() const {
  if (const auto* value = std::get_if<double>(&json_->value)) return *value;
  if (const auto* value = std::get_if<uint64_t>(&json_->value)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<int64_t>(&json_->value)) return static_cast<double>(*value);
  fail("a number");
}

std::string json_quote(std::string_view text) {
  try {
    return nlohmann::json(std::string(text)).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error("cannot write text that is not valid UTF-8 into a JSON file", Error::Kind::kData);
  }
}

std::string json_number(double value) {
  return std::isfinite(value) ? fmt::format("{}", value) : "null";
}

}  // namespace conclave::train
