// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/value_io.h"

#include <fmt/format.h>

#include "conclave/config/scalars.h"
#include "conclave/core/error.h"

namespace conclave::config {

namespace {

void wrong_type(const Node& node, const std::string& path, Problems& problems, const char* expected) {
  problems.add(node.origin, fmt::format("{}: expected {}, got {}", path, expected, emit_yaml_inline(node)),
               "");
}

template <class T, class Parse>
void read_scalar(const Node& node, const std::string& path, Problems& problems, T& member, Parse parse,
                 const char* expected) {
  if (node.kind == Node::Kind::kScalar && !node.quoted) {
    if (const auto value = parse(node.text)) {
      member = *value;
      return;
    }
  }
  wrong_type(node, path, problems, expected);
}

}  // namespace

void read_value(const Node& node, const std::string& path, Problems& problems, bool& member) {
  read_scalar(node, path, problems, member, parse_boolean, "true or false");
}
void read_value(const Node& node, const std::string& path, Problems& problems, int64_t& member) {
  read_scalar(node, path, problems, member, parse_integer, "a whole number");
}
void read_value(const Node& node, const std::string& path, Problems& problems, double& member) {
  read_scalar(node, path, problems, member, parse_number, "a number");
}
void read_value(const Node& node, const std::string& path, Problems& problems, std::string& member) {
  if (node.kind != Node::Kind::kScalar) return wrong_type(node, path, problems, "a word");
  member = node.text;
}
void read_value(const Node& node, const std::string& path, Problems& problems, Value& member) {
  if (node.kind == Node::Kind::kMap) {
    Schedule schedule;
    const size_t before = problems.all().size();
    read_fields([&](Fields& f) { schedule.fields(f); }, nullptr, node, path, problems);
    if (problems.all().size() == before) member = Value(std::move(schedule));
    return;
  }
  double constant = 0;
  read_scalar(node, path, problems, constant, parse_number, "a number or a schedule");
  member = Value(constant);
}
void read_value(const Node& node, const std::string& path, Problems& problems,
                std::map<std::string, std::string>& member) {
  if (node.kind != Node::Kind::kMap) return wrong_type(node, path, problems, "a map of words");
  member.clear();
  for (const auto& entry : node.entries)
    read_value(entry.value, path + "." + entry.key, problems, member[entry.key]);
}

Node write_value(bool member) {
  return Node::scalar(member ? "true" : "false");
}
Node write_value(int64_t member) {
  return Node::scalar(fmt::format("{}", member));
}
Node write_value(double member) {
  return Node::scalar(format_number(member));
}
Node write_value(const std::string& member) {
  return Node::scalar(member, true);
}
Node write_value(const Value& member) {
  if (member.is_constant()) return write_value(member.at(0));
  Schedule schedule = member.schedule();
  return dump_fields([&](Fields& f) { schedule.fields(f); }, nullptr, nullptr);
}
Node write_value(const std::map<std::string, std::string>& member) {
  Node node = Node::map();
  for (const auto& [key, value] : member) node.entries.push_back({key, {}, write_value(value)});
  return node;
}

namespace {

const PluginInfo* find_plugin(const Tables* tables, const std::string& kind, const std::string& name) {
  if (!tables || !tables->count(kind)) throw Error(fmt::format("no plug-in table '{}' was given", kind));
  for (const auto& info : tables->at(kind)) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

}  // namespace

void read_plugin(const Node& node, const std::string& path, Problems& problems, const Tables* tables,
                 const std::string& kind, Plugin& member) {
  if (node.kind != Node::Kind::kMap) return wrong_type(node, path, problems, "{type: NAME, ...}");
  const Node* type = node.find("type");
  if (!type && member.type.empty()) {
    problems.add(node.origin, path + ": 'type' is missing", "write {type: NAME, ...}");
    return;
  }
  const std::string name = type ? type->text : member.type;
  const PluginInfo* info = find_plugin(tables, kind, name);
  if (!info) {
    std::vector<std::string> known;
    for (const auto& entry : tables->at(kind)) known.push_back(entry.name);
    problems.add(type ? type->origin : node.origin,
                 fmt::format("{}.type: {}", path, unknown_name(kind, name, known)), "");
    return;
  }
  if (name != member.type || !member.options.has_value())
    member = {.type = name, .options = info->defaults()};
  Node options = node;
  std::erase_if(options.entries, [](const auto& entry) { return entry.key == "type"; });
  read_fields([&](Fields& f) { member.options.fields(f); }, tables, options, path, problems);
}

Node write_plugin(Plugin& member, const Tables* tables) {
  Node node = Node::map();
  node.entries.push_back({"type", {}, write_value(member.type)});
  Node options = dump_fields([&](Fields& f) { member.options.fields(f); }, tables, nullptr);
  for (auto& entry : options.entries) node.entries.push_back(std::move(entry));
  return node;
}

}  // namespace conclave::config
