// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/plugin_io.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/config/utf8.h"
#include "conclave/config/value_io.h"
#include "conclave/core/error.h"

namespace conclave::config {

const std::vector<PluginInfo>& plugin_table(const Tables* tables, const std::string& kind) {
  if (!tables || !tables->count(kind)) {
    throw Error(fmt::format("no plug-in table '{}' was given to the configuration reader", kind));
  }
  return tables->at(kind);
}

const PluginInfo* find_plugin(const Tables* tables, const std::string& kind, const std::string& name) {
  for (const auto& info : plugin_table(tables, kind)) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

std::vector<std::string> plugin_names(const Tables* tables, const std::string& kind) {
  std::vector<std::string> names;
  for (const auto& info : plugin_table(tables, kind)) names.push_back(info.name);
  return names;
}

std::string singular(const std::string& kind) {
  if (kind.ends_with("sses")) return kind.substr(0, kind.size() - 2);
  return kind.ends_with("s") ? kind.substr(0, kind.size() - 1) : kind;
}

namespace {

bool has_key(const PluginInfo& info, const Tables* tables, const std::string& key) {
  AnyOptions options = info.defaults();
  Fields fields(tables);
  options.fields(fields);
  return std::any_of(fields.all().begin(), fields.all().end(), [&](const Field& f) {
    return f.name == key || std::count(f.aliases.begin(), f.aliases.end(), key) > 0;
  });
}

// "'top_k' is not a key of router 'soft'; it belongs to topk".
UnknownKey tell_other_owner(const Tables* tables, const std::string& kind, const std::string& type,
                            Problems& problems) {
  return [&problems, tables, kind, type](const Node::Entry& entry, const std::string& path) {
    std::vector<std::string> owners;
    for (const auto& info : plugin_table(tables, kind)) {
      if (has_key(info, tables, entry.key)) owners.push_back(info.name);
    }
    if (owners.empty()) return false;
    problems.add(entry.origin,
                 fmt::format("{}: '{}' is not a key of {} '{}'; it belongs to {}", path, printable(entry.key),
                             singular(kind), type, fmt::join(owners, ", ")),
                 fmt::format("remove it, or write 'type: {}'", owners.front()));
    return true;
  };
}

// The name that the node chooses, or the member's own; "" after adding a problem.
std::string chosen_type(const Node& node, const std::string& path, Problems& problems, const Tables* tables,
                        const std::string& kind, const Plugin& member) {
  const Node* type = node.find("type");
  const auto known = fmt::format("{}", fmt::join(plugin_names(tables, kind), ", "));
  if (!type && member.type.empty()) {
    problems.add(node.origin, fmt::format("{}.type is missing", path),
                 fmt::format("write {{type: NAME, ...}} with one of: {}", known), path + ".type");
    return "";
  }
  if (!type) return member.type;
  if (type->kind != Node::Kind::kScalar) {
    add_wrong_type(*type, path + ".type", problems, fmt::format("the name of a {}", singular(kind)),
                   fmt::format("known: {}", known));
    return "";
  }
  if (find_plugin(tables, kind, type->text)) return type->text;
  const std::string near = nearest(type->text, plugin_names(tables, kind));
  problems.add(
      type->origin, fmt::format("{}.type: unknown {} '{}'", path, singular(kind), printable(type->text)),
      fmt::format("{}known: {}", near.empty() ? "" : fmt::format("did you mean '{}'?  ", near), known),
      path + ".type");
  return "";
}

}  // namespace

void read_plugin(const Node& node, const std::string& path, Problems& problems, const Tables* tables,
                 const std::string& kind, Plugin& member) {
  if (node.kind == Node::Kind::kNull && find_plugin(tables, kind, "none")) {
    Node none = Node::map();
    none.origin = node.origin;
    none.entries.push_back({"type", node.origin, Node::scalar("none")});
    return read_plugin(none, path, problems, tables, kind, member);
  }
  if (node.kind != Node::Kind::kMap) {
    const std::string name = node.kind == Node::Kind::kScalar ? printable(node.text) : "NAME";
    return add_wrong_type(node, path, problems, "a section with a type",
                          fmt::format("write {{type: {}}}", name));
  }
  const std::string type = chosen_type(node, path, problems, tables, kind, member);
  if (type.empty()) return;
  if (node.find("type") || !member.options.has_value()) {
    const PluginInfo* info = find_plugin(tables, kind, type);
    CONCLAVE_CHECK(info, fmt::format("{}: the default {} '{}' is not in the table '{}'", path, singular(kind),
                                     type, kind));
    member = {.type = type, .options = info->defaults()};
  }
  Node options = node;
  std::erase_if(options.entries, [](const auto& entry) { return entry.key == "type"; });
  read_struct([&](Fields& f) { member.options.fields(f); }, tables, options, path, problems,
              tell_other_owner(tables, kind, type, problems));
}

void declare_plugin(Plugin& member, const Tables* tables, const std::string& kind, Fields& f) {
  if (member.options.has_value() || member.type.empty()) return member.options.fields(f);
  const PluginInfo* info = find_plugin(tables, kind, member.type);
  CONCLAVE_CHECK(info,
                 fmt::format("the {} '{}' is not in the table '{}'", singular(kind), member.type, kind));
  auto scratch = std::make_shared<AnyOptions>(info->defaults());
  f.keep(scratch);
  scratch->fields(f);
}

Node write_plugin(Plugin& member, const Tables* tables, const std::string& kind, const Node* written) {
  Node type = Node::scalar(member.type, true);
  take_origins(type, written ? written->find("type") : nullptr);
  Node node = dump_fields([&](Fields& f) { declare_plugin(member, tables, kind, f); }, tables, written);
  node.entries.insert(node.entries.begin(), {"type", {}, std::move(type)});
  return node;
}

}  // namespace conclave::config
