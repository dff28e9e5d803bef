// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "conclave/config/overrides.h"

namespace conclave::config {

namespace {

bool names_another_kind(const Node& base, const Node& patch) {
  for (const char* key : {"type", "schedule"}) {
    const Node *old_name = base.find(key), *new_name = patch.find(key);
    if (old_name && new_name && old_name->text != new_name->text) return true;
  }
  return false;
}

}  // namespace

void merge_into(Node& base, Node patch) {
  if (base.kind != Node::Kind::kMap || patch.kind != Node::Kind::kMap || names_another_kind(base, patch)) {
    base = std::move(patch);
    return;
  }
  for (auto& entry : patch.entries) {
    const auto existing = std::find_if(base.entries.begin(), base.entries.end(),
                                       [&](const auto& e) { return e.key == entry.key; });
    if (existing == base.entries.end()) {
      base.entries.push_back(std::move(entry));
    } else {
      existing->origin = entry.origin;
      merge_into(existing->value, std::move(entry.value));
    }
  }
  base.origin = patch.origin;
}

const Node* find_path(const Node& node, std::string_view path) {
  const Node* at = &node;
  for (size_t begin = 0; begin <= path.size() && at;) {
    const size_t dot = std::min(path.find('.', begin), path.size());
    const std::string_view part = path.substr(begin, dot - begin);
    if (at->kind == Node::Kind::kList) {
      size_t index = 0;
      for (const char c : part)
        index = c >= '0' && c <= '9' && index < 1000000 ? index * 10 + (c - '0') : 10000000;
      at = !part.empty() && index < at->items.size() ? &at->items[index] : nullptr;
    } else {
      at = at->find(part);
    }
    begin = dot + 1;
  }
  return at;
}

}  // namespace conclave::config
