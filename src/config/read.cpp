// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/format.h>

#include "conclave/config/fields.h"
#include "conclave/config/scalars.h"

namespace conclave::config {

namespace {

std::string joined(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

bool answers_to(const Field& field, const std::string& key) {
  return field.name == key || std::count(field.aliases.begin(), field.aliases.end(), key) > 0;
}

// Range of a number as the user wrote it; schedules are checked at their extremes by their own numbers.
void check_range(const Field& field, const Node& node, const std::string& path, Problems& problems) {
  if (node.kind == Node::Kind::kMap) {
    for (const char* key : {"from", "to"}) {
      if (const Node* inner = node.find(key)) check_range(field, *inner, joined(path, key), problems);
    }
    if (const Node* values = node.find("values"))
      check_range(field, *values, joined(path, "values"), problems);
    return;
  }
  for (const auto& item : node.items) check_range(field, item, path, problems);
  const auto value = node.kind == Node::Kind::kScalar ? parse_number(node.text) : std::nullopt;
  if (!value) return;
  std::string limit;
  if (field.minimum && *value < *field.minimum) limit = fmt::format(">= {}", *field.minimum);
  if (field.maximum && *value > *field.maximum) limit = fmt::format("<= {}", *field.maximum);
  if (field.exclusive_minimum && *value <= *field.exclusive_minimum)
    limit = fmt::format("> {}", *field.exclusive_minimum);
  if (field.exclusive_maximum && *value >= *field.exclusive_maximum)
    limit = fmt::format("< {}", *field.exclusive_maximum);
  if (!limit.empty())
    problems.add(node.origin, fmt::format("{}: {} is out of range", path, node.text), "must be " + limit);
}

void read_one(Field& field, const Node& node, const std::string& path, Problems& problems) {
  if (node.kind == Node::Kind::kNull && !field.nullable) {
    problems.add(node.origin, fmt::format("{}: null is not a value of this key", path),
                 "leave the key out to get its default");
    return;
  }
  const size_t before = problems.all().size();
  field.read(node, path, problems);
  if (problems.all().size() == before && field.shape == Field::Shape::kLeaf)
    check_range(field, node, path, problems);
}

void report_unknown(const Node::Entry& entry, const std::string& path, std::vector<Field>& fields,
                    Problems& problems) {
  std::vector<std::string> known;
  for (const auto& field : fields) known.push_back(field.name);
  const std::string near = nearest(entry.key, known);
  problems.add(entry.origin,
               fmt::format("unknown key '{}' in {}", entry.key, path.empty() ? "the top level" : path),
               fmt::format("{}known keys: {}", near.empty() ? "" : fmt::format("did you mean '{}'?  ", near),
                           fmt::join(known, ", ")));
}

const Node* find_path(const Node& node, std::string_view path) {
  const Node* at = &node;
  for (size_t begin = 0; begin <= path.size() && at && !path.empty();) {
    const auto dot = std::min(path.find('.', begin), path.size());
    at = at->find(path.substr(begin, dot - begin));
    begin = dot + 1;
  }
  return at;
}

}  // namespace

void read_fields(const std::function<void(Fields&)>& declare, const Tables* tables, const Node& node,
                 const std::string& path, Problems& problems) {
  if (node.kind != Node::Kind::kMap) {
    problems.add(node.origin,
                 fmt::format("{}: expected a section with keys, got {}", path, emit_yaml_inline(node)), "");
    return;
  }
  Fields fields(tables);
  declare(fields);
  const size_t before = problems.all().size();
  std::map<std::string, const Node::Entry*> written;  // by canonical name
  for (const auto& entry : node.entries) {
    const auto field = std::find_if(fields.all().begin(), fields.all().end(),
                                    [&](const Field& f) { return answers_to(f, entry.key); });
    if (field == fields.all().end()) {
      report_unknown(entry, path, fields.all(), problems);
      continue;
    }
    if (const auto [earlier, fresh] = written.emplace(field->name, &entry); !fresh) {
      problems.add(entry.origin,
                   fmt::format("'{}' and '{}' are the same key of {}", entry.key, earlier->second->key, path),
                   fmt::format("keep '{}'", field->name));
      continue;
    }
    read_one(*field, entry.value, joined(path, field->name), problems);
  }
  for (const auto& field : fields.all()) {
    const auto it = written.find(field.name);
    if (it == written.end()) {
      if (field.is_required)
        problems.add(node.origin, fmt::format("{} is missing", joined(path, field.name)), field.doc);
    } else if (field.guard && !field.guard()) {
      problems.add(it->second->origin,
                   fmt::format("{} has no effect here: {}", joined(path, field.name), field.guard_reason),
                   "remove the key, or switch its feature on");
    }
  }
  if (problems.all().size() != before)
    return;  // conditions over members make sense only for readable members
  Check check;
  check.is_set = [&](std::string_view key) { return find_path(node, key) != nullptr; };
  check.error = [&](std::string_view key, std::string message, std::string remedy) {
    const Node* at = find_path(node, key);
    problems.add((at ? *at : node).origin, fmt::format("{}: {}", joined(path, key), message),
                 std::move(remedy));
  };
  for (const auto& condition : fields.checks()) condition(check);
}

namespace {

void take_origins(Node& node, const Node* written, const std::vector<Field>& fields) {
  if (!written) return;
  node.origin = written->origin;
  for (auto& entry : node.entries) {
    const Node* source = written->find(entry.key);
    for (const auto& field : fields) {
      for (const auto& alias : field.aliases) {
        if (!source && field.name == entry.key) source = written->find(alias);
      }
    }
    take_origins(entry.value, source, {});
  }
}

}  // namespace

Node dump_fields(const std::function<void(Fields&)>& declare, const Tables* tables, const Node* written) {
  Fields fields(tables);
  declare(fields);
  Node node = Node::map();
  for (const auto& field : fields.all()) {
    // A key without effect is left out, so that the dump can be read back strictly.
    if (field.guard && !field.guard()) continue;
    node.entries.push_back({field.name, {}, field.write()});
  }
  take_origins(node, written, fields.all());
  return node;
}

}  // namespace conclave::config
