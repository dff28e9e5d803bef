// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "conclave/config/node.h"
#include "conclave/config/scalars.h"

namespace conclave::config {

namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string emit_scalar(const Node& node) {
  return node.quoted && needs_quotes(node.text) ? quoted(node.text) : node.text;
}

std::string place_of(const Origin& origin) {
  if (!origin.source) return "default";
  if (origin.source->name == "command line") return "command line";
  return fmt::format("{}:{}:{}", origin.source->name, origin.line, origin.column);
}

bool is_block(const Node& node) {
  if (node.kind == Node::Kind::kMap) return !node.entries.empty();
  if (node.kind != Node::Kind::kList) return false;
  for (const auto& item : node.items) {
    if (item.kind == Node::Kind::kMap) return true;
  }
  return false;
}

void emit_block(const Node& node, int indent, bool origins, std::string& out) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  if (node.kind == Node::Kind::kMap) {
    for (const auto& entry : node.entries) {
      if (is_block(entry.value)) {
        out += fmt::format("{}{}:\n", pad, entry.key);
        emit_block(entry.value, indent + 2, origins, out);
      } else {
        out += fmt::format("{}{}: {}{}\n", pad, entry.key, emit_yaml_inline(entry.value),
                           origins ? fmt::format("  # {}", place_of(entry.value.origin)) : "");
      }
    }
    return;
  }
  for (const auto& item : node.items) {
    out += fmt::format("{}- {}\n", pad, emit_yaml_inline(item));
  }
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
        out += (out.empty() ? "" : ", ") + e.key + ": " + emit_yaml_inline(e.value);
      return "{" + out + "}";
  }
  return out;
}

std::string emit_yaml(const Node& node) {
  std::string out;
  emit_block(node, 0, false, out);
  return out;
}

std::string emit_yaml_with_origins(const Node& node) {
  std::string out;
  emit_block(node, 0, true, out);
  return out;
}

}  // namespace conclave::config
