// SPDX-License-Identifier: Apache-2.0
// Fields that hold further fields: sections, plug-ins, and lists of both.
#include <fmt/format.h>

#include "conclave/config/fields.h"
#include "conclave/config/plugin_io.h"
#include "conclave/config/value_io.h"

namespace conclave::config {

namespace {

using Declare = std::function<void(Fields&)>;

// A section that the file leaves out, as an empty one at the place of the struct around it.
Node absent_section(const Origin& around) {
  Node node = Node::map();
  node.origin = around;
  return node;
}

const Node* item_of(const Node* written, size_t i) {
  return written && i < written->items.size() ? &written->items[i] : nullptr;
}

// A list as YAML, with the origin of the written list.
Node write_items(size_t count, const Node* written,
                 const std::function<Node(size_t, const Node*)>& write_item) {
  std::vector<Node> items;
  for (size_t i = 0; i < count; ++i) items.push_back(write_item(i, item_of(written, i)));
  Node list = Node::list(std::move(items));
  if (written) list.origin = written->origin;
  return list;
}

}  // namespace

Field& Fields::section(std::string name, std::string doc, Declare declare) {
  return optional_section(
      std::move(name), std::move(doc), [] { return true; }, nullptr, std::move(declare));
}

// `set` is null for a section that is always on.
Field& Fields::optional_section(std::string name, std::string doc, std::function<bool()> has,
                                std::function<void(bool)> set, Declare declare) {
  Field& field = add(std::move(name), std::move(doc), "section");
  field.shape = Field::Shape::kSection;
  field.nullable = set != nullptr;
  field.declare_nested = declare;
  const Tables* tables = tables_;
  field.read = [declare, tables, set](const Node& node, const std::string& path, Problems& problems) {
    if (set) set(node.kind == Node::Kind::kMap);
    if (node.kind == Node::Kind::kNull) return;
    read_fields(declare, tables, node, path, problems);
  };
  field.write = [declare, tables, has](const Node* written) {
    if (has()) return dump_fields(declare, tables, written);
    Node null;
    take_origins(null, written);
    return null;
  };
  field.complete = [declare, tables, has](const Origin& around, const std::string& path, Problems& problems) {
    if (has()) read_fields(declare, tables, absent_section(around), path, problems);
  };
  return field;
}

Field& Fields::section_list(std::string name, std::string doc, std::function<size_t()> size,
                            std::function<void(size_t)> resize,
                            std::function<void(size_t, Fields&)> declare) {
  Field& field = add(std::move(name), std::move(doc), "list of sections");
  field.shape = Field::Shape::kSectionList;
  const Tables* tables = tables_;
  field.num_items = size;
  field.declare_item = declare;
  const auto read_item = [declare, tables](size_t i, const Node& node, const std::string& path,
                                           Problems& problems) {
    read_fields([&](Fields& f) { declare(i, f); }, tables, node, fmt::format("{}.{}", path, i), problems);
  };
  field.read = [resize, read_item](const Node& node, const std::string& path, Problems& problems) {
    if (node.kind != Node::Kind::kList)
      return add_wrong_type(node, path, problems, "a list of sections", "write '- {key: value}' items");
    resize(0);  // no member of an item outlives the list that it stood in
    resize(node.items.size());
    for (size_t i = 0; i < node.items.size(); ++i) read_item(i, node.items[i], path, problems);
  };
  field.write = [declare, tables, size](const Node* written) {
    return write_items(size(), written, [&](size_t i, const Node* item) {
      return dump_fields([&](Fields& f) { declare(i, f); }, tables, item);
    });
  };
  field.complete = [size, read_item](const Origin& around, const std::string& path, Problems& problems) {
    for (size_t i = 0; i < size(); ++i) read_item(i, absent_section(around), path, problems);
  };
  return field;
}

Field& Fields::plugin(std::string name, Plugin& member, std::string kind, std::string doc) {
  Field& field = add(std::move(name), std::move(doc), "plug-in");
  field.shape = Field::Shape::kPlugin;
  field.table = kind;
  const Tables* tables = tables_;
  field.nullable = tables && tables->count(kind) && find_plugin(tables, kind, "none");
  field.declare_nested = [&member, tables, kind](Fields& f) { declare_plugin(member, tables, kind, f); };
  field.read = [&member, tables, kind](const Node& node, const std::string& path, Problems& problems) {
    read_plugin(node, path, problems, tables, kind, member);
  };
  field.write = [&member, tables, kind](const Node* written) {
    return member.type.empty() ? Node{} : write_plugin(member, tables, kind, written);
  };
  field.complete = [&member, tables, kind](const Origin& around, const std::string& path,
                                           Problems& problems) {
    if (!member.type.empty()) read_plugin(absent_section(around), path, problems, tables, kind, member);
  };
  return field;
}

Field& Fields::plugins(std::string name, std::vector<Plugin>& member, std::string kind, std::string doc) {
  Field& field = add(std::move(name), std::move(doc), "list of plug-ins");
  field.shape = Field::Shape::kPluginList;
  field.table = kind;
  const Tables* tables = tables_;
  field.num_items = [&member] { return member.size(); };
  field.declare_item = [&member, tables, kind](size_t i, Fields& f) {
    if (i < member.size()) declare_plugin(member[i], tables, kind, f);
  };
  field.read = [&member, tables, kind](const Node& node, const std::string& path, Problems& problems) {
    if (node.kind != Node::Kind::kList)
      return add_wrong_type(node, path, problems, fmt::format("a list of {}", kind),
                            "write '- {type: NAME}' items");
    member.assign(node.items.size(), Plugin{});
    for (size_t i = 0; i < node.items.size(); ++i)
      read_plugin(node.items[i], fmt::format("{}.{}", path, i), problems, tables, kind, member[i]);
  };
  field.write = [&member, tables, kind](const Node* written) {
    return write_items(member.size(), written, [&](size_t i, const Node* item) {
      return write_plugin(member[i], tables, kind, item);
    });
  };
  field.complete = [&member, tables, kind](const Origin& around, const std::string& path,
                                           Problems& problems) {
    for (size_t i = 0; i < member.size(); ++i)
      read_plugin(absent_section(around), fmt::format("{}.{}", path, i), problems, tables, kind, member[i]);
  };
  return field;
}

}  // namespace conclave::config
