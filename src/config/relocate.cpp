// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "conclave/config/load.h"
#include "conclave/config/overrides.h"

namespace conclave::config {

namespace {

// Removes the entry at a dotted path and returns it.
std::optional<Node::Entry> take_path(Node& tree, const std::string& path) {
  const size_t dot = path.rfind('.');
  Node* parent = dot == std::string::npos ? &tree : const_cast<Node*>(find_path(tree, path.substr(0, dot)));
  const std::string key = path.substr(dot + 1);  // npos + 1 == 0
  if (!parent) return std::nullopt;
  const auto it = std::find_if(parent->entries.begin(), parent->entries.end(),
                               [&](const auto& e) { return e.key == key; });
  if (it == parent->entries.end()) return std::nullopt;
  Node::Entry entry = std::move(*it);
  parent->entries.erase(it);
  return entry;
}

// The section at `path`, created where there is none; null when something else stands in the way.
Node* section_at(Node& tree, const std::string& path, const Origin& origin) {
  Node* node = &tree;
  for (size_t begin = 0; begin <= path.size() && node && !path.empty();) {
    const size_t dot = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, dot - begin);
    Node* next = node->find(part);
    if (!next) {
      node->entries.push_back({part, origin, Node::map()});
      next = &node->entries.back().value;
      next->origin = origin;
    }
    node = next->kind == Node::Kind::kMap ? next : nullptr;
    begin = dot + 1;
  }
  return node;
}

}  // namespace

void relocate_keys(Node& tree, const std::vector<std::pair<std::string, std::string>>& moves,
                   Problems& problems) {
  for (const auto& [from, to] : moves) {
    auto entry = take_path(tree, from);
    if (!entry) continue;
    if (find_path(tree, to)) {
      problems.add(entry->origin, fmt::format("'{}' and '{}' are the same key", from, to),
                   fmt::format("keep '{}'", to));
      continue;
    }
    const size_t dot = to.rfind('.');
    Node* section = section_at(tree, dot == std::string::npos ? "" : to.substr(0, dot), entry->origin);
    if (!section) {
      problems.add(entry->origin, fmt::format("'{}' belongs at '{}', where no section can stand", from, to),
                   fmt::format("write {}", to));
      continue;
    }
    problems.note(entry->origin, fmt::format("'{}' is read as '{}'", from, to));
    entry->key = to.substr(dot + 1);
    section->entries.push_back(std::move(*entry));
  }
}

}  // namespace conclave::config
