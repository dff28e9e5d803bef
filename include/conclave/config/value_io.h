// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/config/fields.h"

// How one member of each type is read from and written to a node. Internal to the config room.
namespace conclave::config {

void read_value(const Node& node, const std::string& path, Problems& problems, bool& member);
void read_value(const Node& node, const std::string& path, Problems& problems, int64_t& member);
void read_value(const Node& node, const std::string& path, Problems& problems, double& member);
void read_value(const Node& node, const std::string& path, Problems& problems, std::string& member);
void read_value(const Node& node, const std::string& path, Problems& problems, Value& member);
void read_value(const Node& node, const std::string& path, Problems& problems,
                std::map<std::string, std::string>& member);
template <class T>
void read_value(const Node& node, const std::string& path, Problems& problems, std::vector<T>& member) {
  if (node.kind != Node::Kind::kList) {
    problems.add(node.origin, path + ": expected a list, got " + emit_yaml_inline(node), "write [a, b]");
    return;
  }
  member.assign(node.items.size(), T{});
  for (size_t i = 0; i < node.items.size(); ++i) {
    read_value(node.items[i], path + "." + std::to_string(i), problems, member[i]);
  }
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

void read_plugin(const Node& node, const std::string& path, Problems& problems, const Tables* tables,
                 const std::string& kind, Plugin& member);
Node write_plugin(Plugin& member, const Tables* tables);

}  // namespace conclave::config
