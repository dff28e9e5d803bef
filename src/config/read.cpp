// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/format.h>

#include "conclave/config/fields.h"
#include "conclave/config/plugin_io.h"
#include "conclave/config/scalars.h"
#include "conclave/config/utf8.h"
#include "conclave/config/value_io.h"

namespace conclave::config {

namespace {

std::string joined(const std::string& path, std::string_view key) {
  return path.empty() || key.empty() ? path + std::string(key) : fmt::format("{}.{}", path, key);
}

// One struct being read from one map.
class StructReader {
 public:
  StructReader(Fields& fields, const Node& node, const std::string& path, Problems& problems)
      : fields_(fields), node_(node), path_(path), problems_(problems) {}

  void run(const UnknownKey& unknown) {
    const size_t before = problems_.all().size();
    for (const auto& entry : node_.entries) read_entry(entry, unknown);
    for (auto& field : fields_.all()) {
      if (!written_.count(field.name)) complete(field);
    }
    if (members_good_) check_guards();
    if (problems_.all().size() != before) return;  // conditions make sense only over readable members
    Check check;
    check.is_set = [this](std::string_view key) { return find_written(fields_, node_, key).first; };
    check.error = [this](std::string_view key, std::string message, std::string remedy) {
      const std::string full = joined(path_, key);
      problems_.add(find_written(fields_, node_, key).second->origin,
                    full.empty() ? message : fmt::format("{}: {}", full, message), std::move(remedy), full);
    };
    for (const auto& condition : fields_.checks()) condition(check);
  }

 private:
  void read_entry(const Node::Entry& entry, const UnknownKey& unknown) {
    const auto field = std::find_if(fields_.all().begin(), fields_.all().end(),
                                    [&](const Field& f) { return answers_to(f, entry.key); });
    if (field == fields_.all().end()) {
      if (!unknown || !unknown(entry, path_)) report_unknown(entry);
      return;
    }
    const std::string name = joined(path_, field->name);
    if (const auto [earlier, fresh] = written_.emplace(field->name, &entry); !fresh) {
      problems_.add(entry.origin,
                    fmt::format("'{}' and '{}' are the same key{}", earlier->second->key, entry.key,
                                path_.empty() ? "" : " of " + path_),
                    fmt::format("keep '{}'", field->name), name);
      members_good_ = false;
      return;
    }
    if (entry.key != field->name)
      problems_.note(entry.origin, fmt::format("'{}' is read as '{}'", joined(path_, entry.key), name));
    const size_t before = problems_.all().size();
    read_member(*field, entry.value, name);
    members_good_ = members_good_ && problems_.all().size() == before;
  }

  void read_member(const Field& field, const Node& node, const std::string& name) {
    if (node.kind == Node::Kind::kNull && !field.nullable) {
      problems_.add(node.origin, fmt::format("{}: null is not a value of this key", name),
                    "leave the key out to get its default", name);
      return;
    }
    const size_t before = problems_.all().size();
    field.read(node, name, problems_);
    if (problems_.all().size() != before || field.shape != Field::Shape::kLeaf) return;
    check_range(field, node, name, problems_);
    if (!field.choices.empty()) check_choices(field, node, name, problems_);
  }

  void complete(const Field& field) {
    const std::string name = joined(path_, field.name);
    if (field.is_required) {
      problems_.add(node_.origin, fmt::format("{} is missing", name), "required: " + field.doc, name);
    } else if (field.complete && (!field.guard || field.guard())) {
      field.complete(node_.origin, name, problems_);
    }
  }

  void check_guards() {
    for (const auto& field : fields_.all()) {
      const auto it = written_.find(field.name);
      if (it == written_.end() || !field.guard || field.guard()) continue;
      if (it->second->value.kind == Node::Kind::kNull && field.nullable) continue;
      const std::string name = joined(path_, field.name);
      problems_.add(it->second->origin, fmt::format("{} has no effect here: {}", name, field.guard_reason),
                    "remove the key, or switch its feature on", name);
    }
  }

  void report_unknown(const Node::Entry& entry) {
    std::vector<std::string> known, all;
    for (const auto& field : fields_.all()) {
      known.push_back(field.name);
      all.push_back(field.name);
      all.insert(all.end(), field.aliases.begin(), field.aliases.end());
    }
    const std::string near = nearest(entry.key, all);
    std::erase(known, near);
    std::string remedy = near.empty() ? "" : fmt::format("did you mean '{}'?  ", near);
    if (near.empty() && entry.value.kind == Node::Kind::kNull && entry.key.find(':') != std::string::npos)
      remedy = "write a space behind the ':'  ";
    if (!known.empty())
      remedy += fmt::format("({}keys here: {})", near.empty() ? "" : "other ", fmt::join(known, ", "));
    problems_.add(entry.origin,
                  fmt::format("unknown key '{}' {}", printable(entry.key),
                              path_.empty() ? "at the top" : "in " + path_),
                  remedy);
  }

  // Whether the dotted key was written, and its node or else the innermost written one around it.
  static std::pair<bool, const Node*> find_written(Fields& fields, const Node& node, std::string_view key) {
    if (key.empty()) return {true, &node};
    const std::string_view first = key.substr(0, key.find('.'));
    const std::string_view rest =
        first.size() < key.size() ? key.substr(first.size() + 1) : std::string_view();
    for (const auto& field : fields.all()) {
      const Node* found = answers_to(field, first) ? find_answer(field, node) : nullptr;
      if (found) return find_below(field, fields.tables(), *found, rest);
    }
    const Node* plain = node.find(first);  // `type` of a plug-in, a key of a schedule
    return plain && rest.empty() ? std::pair(true, plain) : std::pair(false, &node);
  }

  static std::pair<bool, const Node*> find_below(const Field& field, const Tables* tables, const Node& node,
                                                 std::string_view key) {
    if (key.empty()) return {true, &node};
    Fields nested(tables);
    if (field.declare_nested && node.kind == Node::Kind::kMap) {
      field.declare_nested(nested);
      return find_written(nested, node, key);
    }
    const std::string_view index = key.substr(0, key.find('.'));
    const auto i = parse_integer(std::string(index));
    if (node.kind == Node::Kind::kMap) return find_written(nested, node, key);
    if (!i || *i < 0 || static_cast<size_t>(*i) >= node.items.size()) return {false, &node};
    const Node& item = node.items[static_cast<size_t>(*i)];
    if (index.size() == key.size()) return {true, &item};
    if (field.declare_item) field.declare_item(static_cast<size_t>(*i), nested);
    return find_written(nested, item, key.substr(index.size() + 1));
  }

  Fields& fields_;
  const Node& node_;
  const std::string& path_;
  Problems& problems_;
  std::map<std::string, const Node::Entry*> written_;  // by canonical name
  bool members_good_ = true;
};

}  // namespace

void read_struct(const std::function<void(Fields&)>& declare, const Tables* tables, const Node& node,
                 const std::string& path, Problems& problems, const UnknownKey& unknown) {
  if (node.kind != Node::Kind::kMap) {
    add_wrong_type(node, path, problems, "a section with keys", "write its keys below it, or {key: value}");
    return;
  }
  Fields fields(tables);
  declare(fields);
  StructReader(fields, node, path, problems).run(unknown);
}

void read_fields(const std::function<void(Fields&)>& declare, const Tables* tables, const Node& node,
                 const std::string& path, Problems& problems) {
  read_struct(declare, tables, node, path, problems, nullptr);
}

}  // namespace conclave::config
