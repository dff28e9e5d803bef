// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

// Strict JSON for files that we did not write or that may be damaged: duplicate keys, trailing text, deep
// nesting and invalid UTF-8 are errors, numbers keep the kind in which they were written, and nothing depends
// on the locale.
namespace conclave::train {

struct Json {
  struct Member;
  using List = std::vector<Json>;
  using Map = std::vector<Member>;  // in the order of the text, keys are unique

  // uint64_t: written as digits only; int64_t: with a minus sign; double: with a point or an exponent, or too
  // long. Null at first; written without an initialiser, which clang would instantiate before Member is
  // complete.
  std::variant<std::nullptr_t, bool, uint64_t, int64_t, double, std::string, List, Map> value;
};

struct Json::Member {
  std::string key;
  Json value;
};

struct JsonLimits {
  size_t depth = 64;                // nested lists and maps
  size_t values = size_t{1} << 24;  // all values together, so that a small file cannot ask for huge memory
};

// Throws Error (kData) that starts with `where` and names the byte or the key.
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});

// A value together with its place ("manifest.json: files.2.size"), so that a wrong type is reported by name.
// Refers to the Json, which must outlive it. All members throw Error (kData).
class JsonReader {
 public:
  JsonReader(const Json& json, std::string place) : json_(&json), place_(std::move(place)) {}

  JsonReader at(std::string_view key) const;  // of a map
  std::optional<JsonReader> find(std::string_view key) const;
  std::vector<JsonReader> items() const;                            // of a list
  std::vector<std::pair<std::string, JsonReader>> members() const;  // of a map
  const std::string& text() const;
  // A whole number >= 0 written without point or exponent, at most `limit`.
  uint64_t count(uint64_t limit = std::numeric_limits<int64_t>::max()) const;
  double number() const;  // any number
  bool is_null() const { return std::holds_alternative<std::nullptr_t>(json_->value); }
  const std::string& place() const { return place_; }
  [[noreturn]] void fail(const std::string& expected) const;  // "PLACE: expected EXPECTED, found a string"

 private:
  const Json* json_;
  std::string place_;
};

// `text` as a JSON string with its quotes. Throws Error unless `text` is valid UTF-8.
std::string json_quote(std::string_view text);
// Shortest digits that give back the same double; "null" for NaN and infinities, which JSON cannot write.
std::string json_number(double value);

}  // namespace conclave::train
