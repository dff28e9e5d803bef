// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/format.h>

#include "conclave/config/scalars.h"
#include "conclave/config/utf8.h"
#include "conclave/config/value_io.h"

namespace conclave::config {

std::string range_text(const Field& field) {
  std::vector<std::string> limits;
  if (field.minimum) limits.push_back(fmt::format(">= {}", *field.minimum));
  if (field.exclusive_minimum) limits.push_back(fmt::format("> {}", *field.exclusive_minimum));
  if (field.maximum) limits.push_back(fmt::format("<= {}", *field.maximum));
  if (field.exclusive_maximum) limits.push_back(fmt::format("< {}", *field.exclusive_maximum));
  return fmt::format("{}", fmt::join(limits, " and "));
}

void check_range(const Field& field, const Node& node, const std::string& path, Problems& problems) {
  for (const char* key : {"from", "to", "values"}) {
    if (const Node* inner = node.find(key)) check_range(field, *inner, path + "." + key, problems);
  }
  for (size_t i = 0; i < node.items.size(); ++i)
    check_range(field, node.items[i], fmt::format("{}.{}", path, i), problems);
  const auto value = node.kind == Node::Kind::kScalar ? parse_number(node.text) : std::nullopt;
  if (!value) return;
  const bool inside = !(field.minimum && *value < *field.minimum) &&
                      !(field.maximum && *value > *field.maximum) &&
                      !(field.exclusive_minimum && *value <= *field.exclusive_minimum) &&
                      !(field.exclusive_maximum && *value >= *field.exclusive_maximum);
  if (inside) return;
  const std::string range = range_text(field);
  problems.add(node.origin, fmt::format("{}: {} is out of range ({})", path, node.text, range),
               fmt::format("write a value {}", range), path);
}

void check_choices(const Field& field, const Node& node, const std::string& path, Problems& problems) {
  for (size_t i = 0; i < node.items.size(); ++i)
    check_choices(field, node.items[i], fmt::format("{}.{}", path, i), problems);
  if (node.kind != Node::Kind::kScalar || std::count(field.choices.begin(), field.choices.end(), node.text))
    return;
  const std::string near = nearest(node.text, field.choices);
  problems.add(node.origin, fmt::format("{}: unknown value '{}'", path, printable(node.text)),
               fmt::format("{}choices: {}", near.empty() ? "" : fmt::format("did you mean '{}'?  ", near),
                           fmt::join(field.choices, ", ")),
               path);
}

}  // namespace conclave::config
