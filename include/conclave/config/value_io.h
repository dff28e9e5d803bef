// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/config/fields.h"

// How one member of each type is read from and written to a node. Internal to the config room.
namespace conclave::config {

// "expected EXPECTED, got ...", which says what kind of thing the node is.
void add_wrong_type(const Node& node, const std::string& path, Problems& problems,
                    const std::string& expected, std::string remedy);

void read_value(const Node& node, const std::string& path, Problems& problems, bool& member);
void read_value(const Node& node, const std::string& path, Problems& problems, int64_t& member);
void read_value(const Node& node, const std::string& path, Problems& problems, double& member);
void read_value(const Node& node, const std::string& path, Problems& problems, std::string& member);
void read_value(const Node& node, const std::string& path, Problems& problems, Value& member);
void read_value(const Node& node, const std::string& path, Problems& problems,
                std::map<std::string, std::string>& member);
template <class T>
void read_value(const Node& node, const std::string& path, Problems& problems, std::vector<T>& member) {
  if (node.kind != Node::Kind::kList) return add_wrong_type(node, path, problems, "a list", "write [a, b]");
  std::vector<T> items;
  for (size_t i = 0; i < node.items.size(); ++i) {
    T item{};
    read_value(node.items[i], path + "." + std::to_string(i), problems, item);
    items.push_back(std::move(item));
  }
  member = std::move(items);
}
template <class T>
void read_value(const Node& node, const std::string& path, Problems& problems, std::optional<T>& member) {
  if (node.kind == Node::Kind::kNull) return member.reset();
  T value{};
  read_value(node, path, problems, value);
  member = std::move(value);
}

Node write_value(bool member);
Node write_value(int64_t member);
Node write_value(double member);
Node write_value(const std::string& member);
Node write_value(const Value& member);
Node write_value(const std::map<std::string, std::string>& member);
template <class T>
Node write_value(const std::vector<T>& member) {
  std::vector<Node> items;
  for (const auto& item : member) items.push_back(write_value(item));
  return Node::list(std::move(items));
}
template <class T>
Node write_value(const std::optional<T>& member) {
  return member ? write_value(*member) : Node{};
}

// The limits of a field: ">= 0 and < 1", "" when it has none.
std::string range_text(const Field& field);

// The limits and choices as the user wrote the values; a schedule is checked at its own numbers, which are
// its extremes (Value::smallest, largest).
void check_range(const Field& field, const Node& node, const std::string& path, Problems& problems);
void check_choices(const Field& field, const Node& node, const std::string& path, Problems& problems);

// Whether the key is the field's name or one of its aliases, and what stands in the map under such a key.
bool answers_to(const Field& field, std::string_view key);
const Node* find_answer(const Field& field, const Node& map);

// Gives the nodes of `node` the origins of the nodes at the same places of `written` (may be null).
void take_origins(Node& node, const Node* written);

}  // namespace conclave::config
