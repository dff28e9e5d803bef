// SPDX-License-Identifier: Apache-2.0
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "conclave/config/describe.h"
#include "conclave/config/plugin_io.h"
#include "conclave/config/scalars.h"

namespace conclave::config {

namespace {

using Json = nlohmann::ordered_json;
using Shape = Field::Shape;

constexpr const char* kReference = "\\$\\{";  // a text with ${...} is checked after it was filled in
constexpr const char* kUnits = "^[-+]?[0-9][0-9_]*(\\.[0-9]*)?([eE][-+]?[0-9]+)?([kKMGT]|[KMGT]i)?B?$";

Json value_of(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kNull:
      return nullptr;
    case Node::Kind::kList: {
      Json list = Json::array();
      for (const auto& item : node.items) list.push_back(value_of(item));
      return list;
    }
    case Node::Kind::kMap: {
      Json map = Json::object();
      for (const auto& entry : node.entries) map[entry.key] = value_of(entry.value);
      return map;
    }
    case Node::Kind::kScalar:
      break;
  }
  if (node.quoted) return node.text;
  if (const auto boolean = parse_boolean(node.text)) return *boolean;
  if (const auto integer = parse_integer(node.text)) return *integer;
  const auto number = parse_number(node.text);
  return number ? Json(*number) : Json(node.text);
}

class SchemaWriter {
 public:
  explicit SchemaWriter(const Tables* tables) : tables_(tables) {}

  Json& definitions() { return definitions_; }

  Json section(const std::function<void(Fields&)>& declare) {
    Json properties = Json::object();
    Fields fields(tables_);
    declare(fields);
    for (const auto& field : fields.all()) {
      const Json schema = property(field);
      properties[field.name] = schema;
      for (const auto& alias : field.aliases) {
        properties[alias] = schema;
        properties[alias]["description"] = fmt::format("Another spelling of '{}'. {}", field.name, field.doc);
        properties[alias]["deprecated"] = true;
      }
    }
    return {{"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
  }

 private:
  Json property(const Field& field) {
    Json schema = {{"description", description(field)}};
    schema.update(field.shape == Shape::kLeaf ? leaf(field) : branch(field));
    if (field.nullable) schema = or_null(std::move(schema));
    if (!field.is_required && field.shape != Shape::kSection)
      schema["default"] = value_of(field.write(nullptr));
    return schema;
  }

  static std::string description(const Field& field) {
    std::string text = field.doc;
    if (field.is_required) text += " Required (here, in a base file or on the command line).";
    if (field.guard) text += fmt::format(" Refused when {}.", field.guard_reason);
    return text;
  }

  static Json or_null(Json schema) {
    Json description = schema["description"];
    schema.erase("description");
    return {{"description", std::move(description)}, {"anyOf", {std::move(schema), {{"type", "null"}}}}};
  }

  Json leaf(const Field& field) {
    if (field.type == "map of strings")
      return {{"type", "object"}, {"additionalProperties", string_schema()}};
    if (field.type.starts_with("list of "))
      return {{"type", "array"}, {"items", scalar(field, field.type.substr(8))}};
    return scalar(field, field.type);
  }

  Json scalar(const Field& field, const std::string& type) {
    if (!field.choices.empty())
      return {{"anyOf", {{{"enum", field.choices}}, {{"type", "string"}, {"pattern", kReference}}}}};
    if (type == "boolean") return {{"type", {"boolean", "string"}}, {"pattern", kReference}};
    if (type == "string" || type == "strings") return string_schema();
    Json number = {
        {"type", {type.starts_with("integer") ? "integer" : "number", "string"}},
        {"pattern", fmt::format("{}|{}{}", kUnits, kReference, type.ends_with(" or auto") ? "|^auto$" : "")}};
    const auto limit = [&number](const char* name, const std::optional<double>& value) {
      if (value) number[name] = *value;
    };
    limit("minimum", field.minimum);
    limit("maximum", field.maximum);
    limit("exclusiveMinimum", field.exclusive_minimum);
    limit("exclusiveMaximum", field.exclusive_maximum);
    if (type != "number or schedule") return number;
    if (!definitions_.contains("schedule")) {
      auto schedule = std::make_shared<Schedule>();
      definitions_["schedule"] = section([schedule](Fields& f) { schedule->fields(f); });
      definitions_["schedule"]["required"] = {"schedule"};
    }
    return {{"anyOf", {std::move(number), {{"$ref", "#/$defs/schedule"}}}}};
  }

  // A plain 12 or true where a string is expected is read as that text.
  static Json string_schema() { return {{"type", {"string", "number", "boolean"}}}; }

  Json branch(const Field& field) {
    if (field.shape == Shape::kSection) return section(field.declare_nested);
    if (field.shape == Shape::kSectionList) {
      return {{"type", "array"},
              {"items", section([&](Fields& f) { field.declare_item(field.num_items(), f); })}};
    }
    define_plugins(field);
    const Json any = {{"$ref", "#/$defs/" + field.table}};
    if (field.shape == Shape::kPluginList) return {{"type", "array"}, {"items", any}};
    const Node present = field.write(nullptr);
    const Node* type = present.find("type");
    if (!type) return any;
    return {{"anyOf", {any, {{"$ref", fmt::format("#/$defs/{}.{}", field.table, type->text)}}}}};
  }

  // `$defs/routers.topk` describes one plug-in; `$defs/routers` is exactly one of them, by its type. Keys
  // beside the options (see beside_options) are allowed with each.
  void define_plugins(const Field& field) {
    const std::string& kind = field.table;
    if (!defined_.insert(kind).second) return;
    definitions_[kind] = Json::object();
    Json one_of = Json::array();
    for (const auto& info : plugin_table(tables_, kind)) {
      auto options = std::make_shared<AnyOptions>(info.defaults());
      Json schema = {{"description", info.doc}};
      schema.update(section([&](Fields& f) {
        options->fields(f);
        if (field.shape == Shape::kPlugin && field.declare_item) field.declare_item(0, f);
      }));
      schema["properties"]["type"] = {{"const", info.name}};
      const std::string name = kind + "." + info.name;
      definitions_[name] = std::move(schema);
      one_of.push_back({{"allOf", {{{"$ref", "#/$defs/" + name}}, {{"required", {"type"}}}}}});
    }
    definitions_[kind] = {{"oneOf", std::move(one_of)}};
  }

  const Tables* tables_;
  Json definitions_ = Json::object();
  std::set<std::string> defined_;
};

}  // namespace

std::string json_schema(const std::function<void(Fields&)>& declare, const Tables* tables,
                        const std::string& title) {
  SchemaWriter writer(tables);
  Json root = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", title}};
  root.update(writer.section(declare));
  root["properties"]["base"] = {{"type", "string"},
                                {"description", "A file that this one is a patch on, relative to this one."}};
  root["$defs"] = std::move(writer.definitions());
  return root.dump(2) + "\n";
}

}  // namespace conclave::config
