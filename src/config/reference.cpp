// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "conclave/config/describe.h"
#include "conclave/config/problems.h"
#include "conclave/core/error.h"

namespace conclave::config {

namespace {

// Text for one cell of a Markdown table.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string code(const std::string& text) {
  return text.empty() ? "" : fmt::format("`{}`", cell(text));
}

std::string parent_of(const KeyInfo& key) {
  const size_t dot = key.path.rfind('.');
  return dot == std::string::npos ? "" : key.path.substr(0, dot);
}

std::string remarks(const KeyInfo& key) {
  std::string text = cell(key.doc);
  if (key.required) text += " Required.";
  if (!key.guard_reason.empty()) text += fmt::format(" Refused when {}.", cell(key.guard_reason));
  if (!key.aliases.empty())
    text += fmt::format(" Also read as: {}.", code(fmt::format("{}", fmt::join(key.aliases, ", "))));
  return text;
}

// Keys that stand together: one section, or one plug-in's part of it.
using Group = std::vector<const KeyInfo*>;
bool same_group(const KeyInfo& a, const KeyInfo& b) {
  return parent_of(a) == parent_of(b) && a.plugin == b.plugin;
}
std::vector<Group> groups_of(const std::vector<KeyInfo>& keys) {
  std::vector<Group> groups;
  for (const auto& key : keys) {
    const auto it =
        std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return same_group(*g[0], key); });
    (it == groups.end() ? groups.emplace_back() : *it).push_back(&key);
  }
  return groups;
}

std::string heading(const KeyInfo& first) {
  const std::string parent = parent_of(first);
  if (parent.empty()) return "## Top level\n\n";
  if (first.plugin.empty()) return fmt::format("## `{}`\n\n", parent);
  return fmt::format("### `{}`: {}\n\n{}\n\n", parent, first.plugin, first.plugin_doc);
}

std::string normalised(const std::string& key) {
  std::string out;
  for (size_t begin = 0; begin <= key.size();) {
    const size_t dot = std::min(key.find('.', begin), key.size());
    const std::string part = key.substr(begin, dot - begin);
    const bool index = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    out += index ? "[]" : fmt::format("{}{}", out.empty() ? "" : ".", part);
    begin = dot + 1;
  }
  return out;
}

std::string explained(const KeyInfo& key) {
  std::string out = key.path + (key.plugin.empty() ? "" : fmt::format("  (of {})", key.plugin)) + "\n";
  const auto line = [&](const char* label, const std::string& text) {
    if (!text.empty()) out += fmt::format("  {:<9}{}\n", label, text);
  };
  line("", key.doc);
  line("type", key.type);
  line("default", key.required ? "none: the key is required" : key.default_text);
  line("range", key.range);
  line("refused", key.guard_reason.empty() ? "" : "when " + key.guard_reason);
  line("alias", fmt::format("{}", fmt::join(key.aliases, ", ")));
  return out;
}

[[noreturn]] void refuse_unknown_key(const std::vector<KeyInfo>& keys, const std::string& asked) {
  std::vector<std::string> paths, alike;
  for (const auto& key : keys) {
    paths.push_back(key.path);
    const bool same_end = key.path.ends_with(fmt::format(".{}", asked)) ||
                          std::count(key.aliases.begin(), key.aliases.end(), asked);
    if (same_end && !std::count(alike.begin(), alike.end(), key.path)) alike.push_back(key.path);
  }
  const std::string near = nearest(asked, paths);
  const std::string hint = !alike.empty()  ? fmt::format("did you mean {}?", fmt::join(alike, " or "))
                           : !near.empty() ? fmt::format("did you mean '{}'?", near)
                                           : "write the full path, such as training.lr";
  throw ConfigError(fmt::format("unknown key '{}'; {}", asked, hint));
}

}  // namespace

std::string reference_page(const std::function<void(Fields&)>& declare, const Tables* tables,
                           const std::string& title) {
  const auto keys = all_keys(declare, tables);
  std::string out = fmt::format("# {}\n\n", title);
  for (const auto& group : groups_of(keys)) {
    out += heading(*group.front()) +
           "| key | type | default | range | meaning |\n| --- | --- | --- | --- | --- |\n";
    for (const KeyInfo* key : group) {
      const std::string name =
          parent_of(*key).empty() ? key->path : key->path.substr(parent_of(*key).size() + 1);
      out += fmt::format("| `{}` | {} | {} | {} | {} |\n", name, cell(key->type), code(key->default_text),
                         cell(key->range), remarks(*key));
    }
    out += '\n';
  }
  out += "## Keys that take a schedule\n\nEverywhere else a schedule object is an error.\n\n";
  for (const auto& key : keys) {
    if (!key.takes_schedule) continue;
    out += fmt::format("- `{}`{}\n", key.path, key.plugin.empty() ? "" : fmt::format(" ({})", key.plugin));
  }
  return out;
}

std::string explain_key(const std::function<void(Fields&)>& declare, const Tables* tables,
                        const std::string& key) {
  const auto keys = all_keys(declare, tables);
  const std::string asked = normalised(key);
  std::string out;
  bool lists_keys = false;
  for (const auto& info : keys) {
    const bool aliased = std::any_of(info.aliases.begin(), info.aliases.end(), [&](const std::string& alias) {
      return (parent_of(info).empty() ? alias : parent_of(info) + "." + alias) == asked;
    });
    if (info.path == asked || aliased) out += explained(info);
    const std::string parent = parent_of(info);
    if (out.empty() || (parent != asked && parent != asked + "[]")) continue;
    if (!std::exchange(lists_keys, true)) out += "  keys\n";
    out += fmt::format("    {:<28}{}{}\n", info.path.substr(parent.size() + 1),
                       info.plugin.empty() ? "" : fmt::format("({}) ", info.plugin), info.doc);
  }
  if (out.empty()) refuse_unknown_key(keys, asked);
  return out;
}

}  // namespace conclave::config
