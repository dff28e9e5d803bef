// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/fields.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/config/value_io.h"
#include "conclave/core/error.h"

namespace conclave::config {

Field& Field::min(double limit) {
  return minimum = limit, *this;
}
Field& Field::max(double limit) {
  return maximum = limit, *this;
}
Field& Field::positive() {
  return exclusive_minimum = 0.0, *this;
}
Field& Field::less_than(double limit) {
  return exclusive_maximum = limit, *this;
}
Field& Field::one_of(std::vector<std::string> words) {
  return choices = std::move(words), *this;
}
Field& Field::alias(std::string other) {
  return aliases.push_back(std::move(other)), *this;
}
Field& Field::required() {
  return is_required = true, *this;
}
Field& Field::only_if(std::function<bool()> holds, std::string why) {
  guard = std::move(holds);
  guard_reason = std::move(why);
  return *this;
}

Field& Fields::add(std::string name, std::string doc, std::string type) {
  Field field;
  field.name = std::move(name);
  field.doc = std::move(doc);
  field.type = std::move(type);
  return fields_.emplace_back(std::move(field));
}

// The scalar forms differ only in how they read and write a member; value_io.h holds one pair per type. The
// range is checked by the reader, which sees the finished Field.
#define CONCLAVE_FIELD(T, type_name, can_be_null)                                           \
  Field& Fields::operator()(std::string name, T& member, std::string doc) {                 \
    Field& field = add(std::move(name), std::move(doc), type_name);                         \
    field.nullable = can_be_null;                                                           \
    field.read = [&member](const Node& node, const std::string& path, Problems& problems) { \
      read_value(node, path, problems, member);                                             \
    };                                                                                      \
    field.write = [&member](const Node* written) {                                          \
      Node node = write_value(member);                                                      \
      take_origins(node, written);                                                          \
      return node;                                                                          \
    };                                                                                      \
    return field;                                                                           \
  }

CONCLAVE_FIELD(bool, "boolean", false)
CONCLAVE_FIELD(int64_t, "integer", false)
CONCLAVE_FIELD(double, "number", false)
CONCLAVE_FIELD(std::string, "string", false)
CONCLAVE_FIELD(Value, "number or schedule", false)
CONCLAVE_FIELD(std::optional<int64_t>, "integer", true)
CONCLAVE_FIELD(std::optional<double>, "number", true)
CONCLAVE_FIELD(std::optional<Value>, "number or schedule", true)
CONCLAVE_FIELD(std::optional<std::string>, "string", true)
CONCLAVE_FIELD(std::vector<std::string>, "list of strings", false)
CONCLAVE_FIELD(std::vector<double>, "list of numbers", false)
CONCLAVE_FIELD(std::vector<int64_t>, "list of integers", false)
CONCLAVE_FIELD(std::optional<std::vector<int64_t>>, "list of integers", true)
using StringMap = std::map<std::string, std::string>;
CONCLAVE_FIELD(StringMap, "map of strings", false)
#undef CONCLAVE_FIELD

Field& Fields::enumeration(std::string name, std::vector<std::string> spellings, std::string doc,
                           std::function<size_t()> get, std::function<void(size_t)> set) {
  Field& field = add(std::move(name), std::move(doc), "one of");
  field.choices = spellings;  // the reader checks them, with a suggestion
  field.read = [spellings, set](const Node& node, const std::string& path, Problems& problems) {
    if (node.kind != Node::Kind::kScalar) {
      return add_wrong_type(node, path, problems, "one word",
                            fmt::format("choices: {}", fmt::join(spellings, ", ")));
    }
    const auto found = std::find(spellings.begin(), spellings.end(), node.text);
    if (found != spellings.end()) set(static_cast<size_t>(found - spellings.begin()));
  };
  field.write = [spellings, get](const Node* written) {
    CONCLAVE_CHECK(get() < spellings.size(), "an enumeration holds a value that has no spelling");
    Node node = Node::scalar(spellings[get()], true);
    take_origins(node, written);
    return node;
  };
  return field;
}

void Fields::check(std::function<void(Check&)> condition) {
  checks_.push_back(std::move(condition));
}

}  // namespace conclave::config
