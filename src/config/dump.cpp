// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "conclave/config/value_io.h"

namespace conclave::config {

bool answers_to(const Field& field, std::string_view key) {
  return field.name == key || std::count(field.aliases.begin(), field.aliases.end(), key) > 0;
}

const Node* find_answer(const Field& field, const Node& map) {
  for (const auto& entry : map.entries) {
    if (answers_to(field, entry.key)) return &entry.value;
  }
  return nullptr;
}

Node dump_fields(const std::function<void(Fields&)>& declare, const Tables* tables, const Node* written) {
  Fields fields(tables);
  declare(fields);
  Node node = Node::map();
  if (written) node.origin = written->origin;
  for (const auto& field : fields.all()) {
    if (field.guard && !field.guard()) continue;
    node.entries.push_back({field.name, {}, field.write(written ? find_answer(field, *written) : nullptr)});
  }
  return node;
}

}  // namespace conclave::config
