// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "conclave/config/node.h"
#include "conclave/config/scalars.h"

namespace conclave::config {

namespace {

// A plain scalar means what its text says (a number, a boolean), so it is quoted only where it could not
// stand otherwise; a string is quoted wherever it could be read as something else.
std::string emit_scalar(const Node& node) {
  const bool needs = node.quoted ? needs_quotes(node.text) : !is_safe_plain(node.text);
  return needs ? quote(node.text) : node.text;
}

std::string emit_key(const std::string& key) {
  return needs_quotes(key) ? quote(key) : key;
}

std::string place_of(const Origin& origin) {
  if (!origin.source) return "default";
  if (origin.source->name == "command line") return "command line";
  if (origin.line == 0) return origin.source->name;  // not written anywhere: a reason
  return fmt::format("{}:{}:{}", origin.source->name, origin.line, origin.column);
}

// Whether the node takes lines of its own: a map with entries, or a list that holds one.
bool is_block(const Node& node) {
  return !node.entries.empty() || std::any_of(node.items.begin(), node.items.end(), is_block);
}

struct BlockWriter {
  bool origins = false;
  std::string out = {};

  void leaf(const Node& node) {
    out += emit_yaml_inline(node);
    if (origins) out += "  # " + place_of(node.origin);
    out += '\n';
  }

  // `first_pad` is what stands before the first line: a list's "- " replaces two spaces of indentation.
  void write(const Node& node, int indent, std::string first_pad) {
    const std::string pad(static_cast<size_t>(indent), ' ');
    for (const auto& entry : node.entries) {
      out += std::exchange(first_pad, pad) + emit_key(entry.key) + ":";
      if (is_block(entry.value)) {
        out += '\n';
        write(entry.value, indent + 2, pad + "  ");
      } else {
        out += ' ';
        leaf(entry.value);
      }
    }
    for (const auto& item : node.items) {
      out += std::exchange(first_pad, pad);
      if (!item.entries.empty()) {
        write(item, indent + 2, "- ");
      } else if (is_block(item)) {
        out += "-\n";
        write(item, indent + 2, pad + "  ");
      } else {
        out += "- ";
        leaf(item);
      }
    }
  }
};

std::string emit_document(const Node& node, bool origins) {
  BlockWriter writer{.origins = origins};
  if (is_block(node)) {
    writer.write(node, 0, "");
  } else {
    writer.leaf(node);
  }
  return writer.out;
}

}  // namespace

std::string emit_yaml_inline(const Node& node) {
  std::string out;
  switch (node.kind) {
    case Node::Kind::kNull:
      return "null";
    case Node::Kind::kScalar:
      return emit_scalar(node);
    case Node::Kind::kList:
      for (const auto& item : node.items) out += (out.empty() ? "" : ", ") + emit_yaml_inline(item);
      return "[" + out + "]";
    case Node::Kind::kMap:
      for (const auto& e : node.entries)
        out += (out.empty() ? "" : ", ") + emit_key(e.key) + ": " + emit_yaml_inline(e.value);
      return "{" + out + "}";
  }
  return out;
}

std::string emit_yaml(const Node& node) {
  return emit_document(node, false);
}

std::string emit_yaml_with_origins(const Node& node) {
  return emit_document(node, true);
}

}  // namespace conclave::config
