// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <any>
#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conclave/config/node.h"
#include "conclave/config/problems.h"
#include "conclave/config/value.h"

// One declaration per key. A struct that can be configured has `void fields(config::Fields& f)`, which names
// each member once; that list drives reading, range and enum checks, defaults, aliases, dump, reference page
// and schema:
//
//   struct AdamWOptions {
//     config::Value lr = 1.5e-3;
//     double eps = 1e-8;
//     void fields(config::Fields& f) {
//       f("lr", lr, "Peak learning rate.").positive();
//       f("eps", eps, "Added to the root of the second moment; > 0.").positive();
//     }
//   };
//
// Such structs stay plain aggregates: a program that links the library fills them without YAML.
namespace conclave::config {

class Fields;
struct Field;

template <class T>
concept Configurable = requires(T& t, Fields& f) {
  t.fields(f);
};

// A value of any Configurable type, copied by value.
class AnyOptions {
 public:
  AnyOptions() = default;
  template <Configurable T>
  requires(!std::same_as<T, AnyOptions>) AnyOptions(T options)  // NOLINT: implicit on purpose
      : value_(std::move(options)), fields_([](std::any& a, Fields& f) { std::any_cast<T&>(a).fields(f); }) {}

  bool has_value() const { return value_.has_value(); }
  void fields(Fields& f) {
    if (fields_) fields_(value_, f);
  }
  // The options as T; throws std::bad_any_cast when they are of another type.
  template <class T>
  const T& as() const {
    return std::any_cast<const T&>(value_);
  }
  template <class T>
  T& as() {
    return std::any_cast<T&>(value_);
  }

 private:
  std::any value_;
  void (*fields_)(std::any&, Fields&) = nullptr;
};

// `{type: NAME, ...options of NAME}`: a choice out of a plug-in table.
struct Plugin {
  std::string type;
  AnyOptions options;
};

// What the schema knows of one plug-in; the entries of the registry's tables derive from it.
struct PluginInfo {
  std::string name;
  std::string doc;
  std::function<AnyOptions()> defaults;  // options as they are when the file sets none
};

// Plug-in tables by kind ("routers", "aux_losses", ...), in the order of registration.
using Tables = std::map<std::string, std::vector<PluginInfo>>;

// Positions for cross-field checks, which run after all members of a struct were read without error.
class Check {
 public:
  // Reports a problem at `key` (dotted path relative to the struct, e.g. "capacity.min"; "" for the struct
  // itself).
  std::function<void(std::string_view key, std::string message, std::string remedy)> error;
  // Whether the file or the command line wrote that key (a default is not "set").
  std::function<bool(std::string_view key)> is_set;
};

// The declaration of one key; `Fields` returns it so that limits can be chained.
struct Field {
  Field& min(double limit);        // value >= limit
  Field& max(double limit);        // value <= limit
  Field& positive();               // value > 0
  Field& less_than(double limit);  // value < limit
  Field& one_of(std::vector<std::string> choices);
  Field& alias(std::string name);  // another framework's spelling, accepted in the same place with a note
  Field& required();               // no default: a file that leaves it out is an error
  // The key may only be set while `holds` is true after reading (else an error that says `why`); null on a
  // key that may be null counts as not set.
  Field& only_if(std::function<bool()> holds, std::string why);

  std::string name, doc, type;  // type: "integer", "number", "number or schedule", "string", "boolean", ...
  std::optional<double> minimum, maximum, exclusive_minimum, exclusive_maximum;
  std::vector<std::string> choices, aliases;
  bool is_required = false;
  bool nullable = false;
  std::function<bool()> guard;
  std::string guard_reason;
  enum class Shape { kLeaf, kSection, kPlugin, kPluginList, kSectionList } shape = Shape::kLeaf;
  std::string table;  // kPlugin, kPluginList: the kind of table

  // Bound to the member. `read` stores the node or adds a problem that says path, expected type and what was
  // found. `write` gives the member's present value; `written`, the node it was read from (may be null),
  // lends the origins.
  std::function<void(const Node&, const std::string& path, Problems&)> read;
  std::function<Node(const Node* written)> write;
  // kSection, kPlugin: the fields of the nested struct (of the chosen plug-in), of a default one where it is
  // off.
  std::function<void(Fields&)> declare_nested;
  // kSectionList, kPluginList: the present items, and the fields of item i or, past the end, of a fresh one.
  std::function<size_t()> num_items;
  std::function<void(size_t i, Fields&)> declare_item;
  // Not leaf: what has to be read where the file is silent (required keys, checks and defaults inside).
  std::function<void(const Origin&, const std::string& path, Problems&)> complete;
};

class Fields {
 public:
  explicit Fields(const Tables* tables = nullptr) : tables_(tables) {}

  Field& operator()(std::string name, bool& member, std::string doc);
  Field& operator()(std::string name, int64_t& member, std::string doc);
  Field& operator()(std::string name, double& member, std::string doc);
  Field& operator()(std::string name, std::string& member, std::string doc);
  Field& operator()(std::string name, Value& member, std::string doc);
  Field& operator()(std::string name, std::optional<int64_t>& member, std::string doc);
  Field& operator()(std::string name, std::optional<double>& member, std::string doc);
  Field& operator()(std::string name, std::optional<Value>& member, std::string doc);
  Field& operator()(std::string name, std::optional<std::string>& member, std::string doc);
  Field& operator()(std::string name, std::vector<std::string>& member, std::string doc);
  Field& operator()(std::string name, std::vector<double>& member, std::string doc);
  Field& operator()(std::string name, std::vector<int64_t>& member, std::string doc);
  Field& operator()(std::string name, std::optional<std::vector<int64_t>>& member, std::string doc);
  Field& operator()(std::string name, std::map<std::string, std::string>& member, std::string doc);

  // An enumeration by its YAML spellings.
  template <class E>
  requires std::is_enum_v<E> Field& operator()(std::string name, E& member,
                                               const std::vector<std::pair<std::string, E>>& spellings,
                                               std::string doc);

  // A nested struct; the optional form is off (null) until the section is written.
  template <Configurable T>
  Field& operator()(std::string name, T& member, std::string doc);
  template <Configurable T>
  Field& operator()(std::string name, std::optional<T>& member, std::string doc);
  template <Configurable T>
  Field& operator()(std::string name, std::vector<T>& member, std::string doc);

  // One plug-in, or a list of them, out of the table `kind`. An optional plug-in is written `{type: none}` or
  // null.
  Field& plugin(std::string name, Plugin& member, std::string kind, std::string doc);
  Field& plugins(std::string name, std::vector<Plugin>& member, std::string kind, std::string doc);

  // Keeps a scratch object alive as long as the declarations that are bound to it.
  void keep(std::shared_ptr<void> scratch) { kept_.push_back(std::move(scratch)); }

  // A condition over several members.
  void check(std::function<void(Check&)> condition);

  const Tables* tables() const { return tables_; }
  std::vector<Field>& all() { return fields_; }
  const std::vector<std::function<void(Check&)>>& checks() const { return checks_; }

 private:
  Field& add(std::string name, std::string doc, std::string type);
  Field& section(std::string name, std::string doc, std::function<void(Fields&)> declare);
  Field& optional_section(std::string name, std::string doc, std::function<bool()> has,
                          std::function<void(bool)> set, std::function<void(Fields&)> declare);
  Field& section_list(std::string name, std::string doc, std::function<size_t()> size,
                      std::function<void(size_t)> resize, std::function<void(size_t, Fields&)> declare);
  Field& enumeration(std::string name, std::vector<std::string> spellings, std::string doc,
                     std::function<size_t()> get, std::function<void(size_t)> set);

  const Tables* tables_;
  std::vector<Field> fields_;
  std::vector<std::function<void(Check&)>> checks_;
  std::vector<std::shared_ptr<void>> kept_;
};

// ---- the operations that the declarations drive ----

// Reads `node` (a map) into the struct behind `declare`. Unknown keys, wrong types, ranges, guards and checks
// become problems, used aliases notes. Sections that the node leaves out are read as if they were empty, so
// that their required keys are missed, their checks run and their plug-ins get default options. `path` is the
// dotted place of the section ("" at the top).
void read_fields(const std::function<void(Fields&)>& declare, const Tables* tables, const Node& node,
                 const std::string& path, Problems& problems);

// The whole struct as a tree, defaults included, ready for emit_yaml; a key whose guard is off is left out,
// so that the tree can be read back. `written` (the tree that was read; may be null) supplies the origins of
// what the user wrote; all other values have none.
Node dump_fields(const std::function<void(Fields&)>& declare, const Tables* tables, const Node* written);

// ---- templates ----

template <class E>
requires std::is_enum_v<E> Field& Fields::operator()(std::string name, E& member,
                                                     const std::vector<std::pair<std::string, E>>& spellings,
                                                     std::string doc) {
  std::vector<std::string> words;
  std::vector<E> values;
  for (const auto& [word, value] : spellings) {
    words.push_back(word);
    values.push_back(value);
  }
  return enumeration(
      std::move(name), std::move(words), std::move(doc),
      [&member, values] {
        size_t i = 0;
        while (i < values.size() && values[i] != member) ++i;
        return i;
      },
      [&member, values](size_t i) { member = values[i]; });
}

template <Configurable T>
Field& Fields::operator()(std::string name, T& member, std::string doc) {
  return section(std::move(name), std::move(doc), [&member](Fields& f) { member.fields(f); });
}

// The fields of a default T, for the schema of a section that is off or a list that is empty.
template <Configurable T>
void declare_default(Fields& f) {
  auto scratch = std::make_shared<T>();
  f.keep(scratch);
  scratch->fields(f);
}

template <Configurable T>
Field& Fields::operator()(std::string name, std::optional<T>& member, std::string doc) {
  return optional_section(
      std::move(name), std::move(doc), [&member] { return member.has_value(); },
      [&member](bool on) {
        if (!on) {
          member.reset();
        } else if (!member) {
          member.emplace();
        }
      },
      [&member](Fields& f) { member ? member->fields(f) : declare_default<T>(f); });
}

template <Configurable T>
Field& Fields::operator()(std::string name, std::vector<T>& member, std::string doc) {
  return section_list(
      std::move(name), std::move(doc), [&member] { return member.size(); },
      [&member](size_t n) { member.resize(n); },
      [&member](size_t i, Fields& f) { i < member.size() ? member[i].fields(f) : declare_default<T>(f); });
}

}  // namespace conclave::config
