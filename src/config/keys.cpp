// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "conclave/config/describe.h"
#include "conclave/config/plugin_io.h"
#include "conclave/config/value_io.h"

namespace conclave::config {

namespace {

std::string type_text(const Field& field, const Tables* tables) {
  using Shape = Field::Shape;
  std::string text = field.type;
  if (!field.choices.empty()) text = fmt::format("{}", fmt::join(field.choices, " | "));
  if (!field.choices.empty() && field.type.starts_with("list")) text = "list of " + text;
  if (field.shape == Shape::kPlugin || field.shape == Shape::kPluginList) {
    text = fmt::format("{}{}: {}", field.shape == Shape::kPluginList ? "list of " : "", singular(field.table),
                       fmt::join(plugin_names(tables, field.table), " | "));
  }
  return field.nullable ? text + ", or null" : text;
}

class Collector {
 public:
  explicit Collector(const Tables* tables) : tables_(tables) {}

  std::vector<KeyInfo> take() { return std::move(keys_); }

  void walk(const std::function<void(Fields&)>& declare, const std::string& path) {
    Fields fields(tables_);
    declare(fields);
    for (const auto& field : fields.all()) add(field, path.empty() ? field.name : path + "." + field.name);
  }

 private:
  void add(const Field& field, const std::string& path) {
    using Shape = Field::Shape;
    const bool is_section = field.shape == Shape::kSection || field.shape == Shape::kSectionList;
    const bool always_on = field.shape == Shape::kSection && !field.nullable;
    keys_.push_back(
        {.path = path,
         .plugin = plugin_,
         .plugin_doc = plugin_doc_,
         .type = type_text(field, tables_),
         .default_text = always_on || field.is_required ? "" : emit_yaml_inline(field.write(nullptr)),
         .range = range_text(field),
         .doc = field.doc,
         .aliases = field.aliases,
         .guard_reason = field.guard ? field.guard_reason : "",
         .required = field.is_required,
         .is_section = is_section,
         .takes_schedule = field.type == "number or schedule"});
    if (field.shape == Shape::kSection) walk(field.declare_nested, path);
    if (field.shape == Shape::kSectionList) {
      // Past the end of any list: the fields of a fresh item.
      walk([&](Fields& f) { field.declare_item(field.num_items(), f); }, path + "[]");
    }
    if (field.shape == Shape::kPlugin && field.declare_item)
      walk([&](Fields& f) { field.declare_item(0, f); }, path);
    if (field.shape == Shape::kPlugin) add_plugins(field.table, path);
    if (field.shape == Shape::kPluginList) add_plugins(field.table, path + "[]");
  }

  void add_plugins(const std::string& kind, const std::string& path) {
    if (std::count(open_tables_.begin(), open_tables_.end(), kind)) return;
    open_tables_.push_back(kind);
    for (const auto& info : plugin_table(tables_, kind)) {
      const auto outer = std::pair(plugin_, plugin_doc_);
      plugin_ = fmt::format("{} '{}'", singular(kind), info.name);
      plugin_doc_ = info.doc;
      AnyOptions options = info.defaults();
      walk([&](Fields& f) { options.fields(f); }, path);
      std::tie(plugin_, plugin_doc_) = outer;
    }
    open_tables_.pop_back();
  }

  const Tables* tables_;
  std::vector<KeyInfo> keys_;
  std::vector<std::string> open_tables_;
  std::string plugin_, plugin_doc_;
};

}  // namespace

std::vector<KeyInfo> all_keys(const std::function<void(Fields&)>& declare, const Tables* tables) {
  Collector collector(tables);
  collector.walk(declare, "");
  return collector.take();
}

}  // namespace conclave::config
