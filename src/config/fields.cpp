// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/fields.h"

#include <fmt/format.h>

#include "conclave/config/scalars.h"
#include "conclave/config/value_io.h"

namespace conclave::config {

Field& Field::min(double limit) {
  return minimum = limit, *this;
}
Field& Field::max(double limit) {
  return maximum = limit, *this;
}
Field& Field::positive() {
  return exclusive_minimum = 0.0, *this;
}
Field& Field::less_than(double limit) {
  return exclusive_maximum = limit, *this;
}
Field& Field::one_of(std::vector<std::string> words) {
  return choices = std::move(words), *this;
}
Field& Field::alias(std::string other) {
  return aliases.push_back(std::move(other)), *this;
}
Field& Field::required() {
  return is_required = true, *this;
}
Field& Field::only_if(std::function<bool()> holds, std::string why) {
  guard = std::move(holds);
  guard_reason = std::move(why);
  return *this;
}

Field& Fields::add(std::string name, std::string doc, std::string type) {
  Field field;
  field.name = std::move(name);
  field.doc = std::move(doc);
  field.type = std::move(type);
  return fields_.emplace_back(std::move(field));
}

// The scalar forms differ only in how they read and write a member; value_io.h holds one pair per type. The
// range is checked by the reader, which sees the finished Field.
#define CONCLAVE_FIELD(T, type_name, can_be_null)                                           \
  Field& Fields::operator()(std::string name, T& member, std::string doc) {                 \
    Field& field = add(std::move(name), std::move(doc), type_name);                         \
    field.nullable = can_be_null;                                                           \
    field.read = [&member](const Node& node, const std::string& path, Problems& problems) { \
      read_value(node, path, problems, member);                                             \
    };                                                                                      \
    field.write = [&member] { return write_value(member); };                                \
    return field;                                                                           \
  }

CONCLAVE_FIELD(bool, "boolean", false)
CONCLAVE_FIELD(int64_t, "integer", false)
CONCLAVE_FIELD(double, "number", false)
CONCLAVE_FIELD(std::string, "string", false)
CONCLAVE_FIELD(Value, "number or schedule", false)
CONCLAVE_FIELD(std::optional<int64_t>, "integer", true)
CONCLAVE_FIELD(std::optional<double>, "number", true)
CONCLAVE_FIELD(std::optional<Value>, "number or schedule", true)
CONCLAVE_FIELD(std::optional<std::string>, "string", true)
CONCLAVE_FIELD(std::vector<std::string>, "list of strings", false)
CONCLAVE_FIELD(std::vector<double>, "list of numbers", false)
CONCLAVE_FIELD(std::vector<int64_t>, "list of integers", false)
CONCLAVE_FIELD(std::optional<std::vector<int64_t>>, "list of integers", true)
using StringMap = std::map<std::string, std::string>;
CONCLAVE_FIELD(StringMap, "map of strings", false)
#undef CONCLAVE_FIELD

Field& Fields::enumeration(std::string name, std::vector<std::string> spellings, std::string doc,
                           std::function<size_t()> get, std::function<void(size_t)> set) {
  Field& field = add(std::move(name), std::move(doc), "one of");
  field.choices = spellings;
  field.read = [spellings, set](const Node& node, const std::string& path, Problems& problems) {
    for (size_t i = 0; i < spellings.size(); ++i) {
      if (node.kind == Node::Kind::kScalar && node.text == spellings[i]) return set(i);
    }
    problems.add(node.origin,
                 fmt::format("{}: {}", path, unknown_name("value", emit_yaml_inline(node), spellings)), "");
  };
  field.write = [spellings, get] { return Node::scalar(spellings.at(get()), true); };
  return field;
}

Field& Fields::section(std::string name, std::string doc, std::function<void(Fields&)> declare) {
  Field& field = add(std::move(name), std::move(doc), "section");
  field.shape = Field::Shape::kSection;
  const Tables* tables = tables_;
  field.declare_nested = declare;
  field.read = [declare, tables](const Node& node, const std::string& path, Problems& problems) {
    read_fields(declare, tables, node, path, problems);
  };
  field.write = [declare, tables] { return dump_fields(declare, tables, nullptr); };
  return field;
}

Field& Fields::optional_section(std::string name, std::string doc, std::function<bool()> has,
                                std::function<void(bool)> set, std::function<void(Fields&)> declare) {
  Field& field = add(std::move(name), std::move(doc), "section");
  field.shape = Field::Shape::kSection;
  field.nullable = true;
  field.declare_nested = declare;
  const Tables* tables = tables_;
  field.read = [declare, tables, set](const Node& node, const std::string& path, Problems& problems) {
    set(node.kind != Node::Kind::kNull);
    if (node.kind != Node::Kind::kNull) read_fields(declare, tables, node, path, problems);
  };
  field.write = [declare, tables, has] { return has() ? dump_fields(declare, tables, nullptr) : Node{}; };
  return field;
}

Field& Fields::section_list(std::string name, std::string doc, std::function<size_t()> size,
                            std::function<void(size_t)> resize,
                            std::function<void(size_t, Fields&)> declare) {
  Field& field = add(std::move(name), std::move(doc), "list of sections");
  field.shape = Field::Shape::kSectionList;
  const Tables* tables = tables_;
  field.read = [=](const Node& node, const std::string& path, Problems& problems) {
    if (node.kind != Node::Kind::kList) {
      problems.add(node.origin, fmt::format("{}: expected a list of sections", path),
                   "write '- {...}' items");
      return;
    }
    resize(0);
    resize(node.items.size());
    for (size_t i = 0; i < node.items.size(); ++i) {
      read_fields([&](Fields& f) { declare(i, f); }, tables, node.items[i], fmt::format("{}.{}", path, i),
                  problems);
    }
  };
  field.write = [=] {
    std::vector<Node> items;
    for (size_t i = 0; i < size(); ++i) {
      items.push_back(dump_fields([&](Fields& f) { declare(i, f); }, tables, nullptr));
    }
    return Node::list(std::move(items));
  };
  return field;
}

Field& Fields::plugin(std::string name, Plugin& member, std::string kind, std::string doc) {
  Field& field = add(std::move(name), std::move(doc), "plug-in");
  field.shape = Field::Shape::kPlugin;
  field.table = kind;
  const Tables* tables = tables_;
  field.read = [&member, tables, kind](const Node& node, const std::string& path, Problems& problems) {
    read_plugin(node, path, problems, tables, kind, member);
  };
  field.write = [&member, tables] { return write_plugin(member, tables); };
  return field;
}

Field& Fields::plugins(std::string name, std::vector<Plugin>& member, std::string kind, std::string doc) {
  Field& field = add(std::move(name), std::move(doc), "list of plug-ins");
  field.shape = Field::Shape::kPluginList;
  field.table = kind;
  const Tables* tables = tables_;
  field.read = [&member, tables, kind](const Node& node, const std::string& path, Problems& problems) {
    if (node.kind != Node::Kind::kList) {
      problems.add(node.origin, fmt::format("{}: expected a list", path), "write '- {type: ...}' items");
      return;
    }
    member.assign(node.items.size(), Plugin{});
    for (size_t i = 0; i < node.items.size(); ++i) {
      read_plugin(node.items[i], fmt::format("{}.{}", path, i), problems, tables, kind, member[i]);
    }
  };
  field.write = [&member, tables] {
    std::vector<Node> items;
    for (auto& plugin : member) items.push_back(write_plugin(plugin, tables));
    return Node::list(std::move(items));
  };
  return field;
}

void Fields::check(std::function<void(Check&)> condition) {
  checks_.push_back(std::move(condition));
}

}  // namespace conclave::config
