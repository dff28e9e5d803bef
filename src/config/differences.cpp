// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "conclave/config/load.h"
#include "conclave/config/scalars.h"

namespace conclave::config {

namespace {

using Lines = std::vector<std::string>;

bool same_scalar(const Node& a, const Node& b) {
  if (a.text == b.text && a.quoted == b.quoted) return true;
  if (!a.quoted && !b.quoted) {
    const auto x = parse_integer(a.text), y = parse_integer(b.text);
    if (x && y) return *x == *y;
    const auto u = parse_number(a.text), v = parse_number(b.text);
    return (u && v && *u == *v) || a.text == b.text;
  }
  // One is quoted: the same string, unless the plain one means a number, a boolean or null.
  const Node& plain = a.quoted ? b : a;
  return a.text == b.text && (plain.quoted || !needs_quotes(plain.text));
}

void compare(const Node* a, const Node* b, const std::string& path, Lines& lines);

void compare_maps(const Node& a, const Node& b, const std::string& path, Lines& lines) {
  const auto below = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
  for (const auto& entry : a.entries) compare(&entry.value, b.find(entry.key), below(entry.key), lines);
  for (const auto& entry : b.entries) {
    if (!a.find(entry.key)) compare(nullptr, &entry.value, below(entry.key), lines);
  }
}

void compare(const Node* a, const Node* b, const std::string& path, Lines& lines) {
  if (a && b && a->kind == b->kind) {
    if (a->kind == Node::Kind::kNull) return;
    if (a->kind == Node::Kind::kMap) return compare_maps(*a, *b, path, lines);
    if (a->kind == Node::Kind::kScalar && same_scalar(*a, *b)) return;
    if (a->kind == Node::Kind::kList && a->items.size() == b->items.size()) {
      for (size_t i = 0; i < a->items.size(); ++i)
        compare(&a->items[i], &b->items[i], fmt::format("{}.{}", path, i), lines);
      return;
    }
  }
  const auto text_of = [](const Node* node) { return node ? emit_yaml_inline(*node) : "(absent)"; };
  lines.push_back(fmt::format("{}: {} -> {}", path.empty() ? "(top)" : path, text_of(a), text_of(b)));
}

}  // namespace

std::vector<std::string> differences(const Node& before, const Node& after) {
  Lines lines;
  compare(&before, &after, "", lines);
  return lines;
}

}  // namespace conclave::config
