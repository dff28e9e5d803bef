// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::config {

// A text that configuration came from: a YAML file, or one override of the command line ("training.lr=1").
struct Source {
  std::string name;  // path as the user gave it, or "command line"
  std::string text;
};

// A place in a Source; 1-based, columns in bytes. An empty `source` means "a default" (nothing was written).
struct Origin {
  std::shared_ptr<const Source> source;
  int line = 0;
  int column = 0;
  int length = 1;  // bytes that the caret underlines
};

// One value of the tree, with the place where it was written. Plain data: yaml-cpp stays inside parse.cpp.
struct Node {
  enum class Kind { kNull, kScalar, kList, kMap };
  struct Entry;

  Kind kind = Kind::kNull;
  std::string text;     // kScalar: as written, without quotes
  bool quoted = false;  // kScalar: was quoted, so it is a string whatever it looks like
  std::vector<Node> items;
  std::vector<Entry> entries;  // in the order of the file; keys are unique
  Origin origin;

  const Node* find(std::string_view key) const;
  Node* find(std::string_view key);
  static Node scalar(std::string text, bool quoted = false);
  static Node list(std::vector<Node> items);
  static Node map();
};

struct Node::Entry {
  std::string key;
  Origin origin;  // of the key
  Node value;
};

// YAML text of a tree: two-space indentation, keys in order, floats as d.de-NN so that YAML 1.1 readers see
// numbers, strings quoted when another reader could take them for something else. Feeding it back gives an
// equal tree.
std::string emit_yaml(const Node& node);

// One line: `[1, 2]`, `{a: 1}`, `null`.
std::string emit_yaml_inline(const Node& node);

// Same as emit_yaml, with `# origin` comments behind the values of maps: "default", "quickstart.yaml:12:9",
// "command line".
std::string emit_yaml_with_origins(const Node& node);

}  // namespace conclave::config
