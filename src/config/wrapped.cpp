// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/wrapped.h"

#include <algorithm>

#include "conclave/config/value_io.h"

namespace conclave::config {

Field& or_auto(Field& field) {
  field.type += " or auto";
  field.nullable = false;
  field.read = [read = std::move(field.read)](const Node& node, const std::string& path, Problems& problems) {
    if (node.kind != Node::Kind::kScalar || node.text != "auto") return read(node, path, problems);
    Node null;
    null.origin = node.origin;
    read(null, path, problems);
  };
  field.write = [write = std::move(field.write)](const Node* written) {
    Node node = write(written);
    if (node.kind != Node::Kind::kNull) return node;
    Node word = Node::scalar("auto", true);
    word.origin = node.origin;
    return word;
  };
  return field;
}

namespace {

// The entries of a map whose keys are, or are not, among those that `declare` declares.
Node entries_of(const Node& map, const std::function<void(Fields&)>& declare, bool declared) {
  Fields fields;
  declare(fields);
  Node part = map;
  std::erase_if(part.entries, [&](const Node::Entry& entry) {
    const bool known = std::any_of(fields.all().begin(), fields.all().end(),
                                   [&](const Field& f) { return answers_to(f, entry.key); });
    return known != declared;
  });
  return part;
}

}  // namespace

Field& beside_options(Field& plugin, std::function<void(Fields&)> declare) {
  plugin.read = [read = std::move(plugin.read), declare](const Node& node, const std::string& path,
                                                         Problems& problems) {
    if (node.kind != Node::Kind::kMap) return read(node, path, problems);
    read(entries_of(node, declare, false), path, problems);
    read_fields(declare, nullptr, entries_of(node, declare, true), path, problems);
  };
  plugin.write = [write = std::move(plugin.write), declare](const Node* written) {
    Node node = write(written);
    for (auto& entry : dump_fields(declare, nullptr, written).entries)
      node.entries.push_back(std::move(entry));
    return node;
  };
  plugin.declare_nested = [nested = std::move(plugin.declare_nested), declare](Fields& f) {
    nested(f);
    declare(f);
  };
  plugin.declare_item = [declare](size_t, Fields& f) { declare(f); };
  return plugin;
}

}  // namespace conclave::config
