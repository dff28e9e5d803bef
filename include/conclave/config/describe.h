// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "conclave/config/fields.h"

// What a user can write, told by the same declarations that read it.
namespace conclave::config {

// One key of the tree as documentation shows it.
struct KeyInfo {
  std::string path;    // "data.train[].weight": [] stands for an item of a list
  std::string plugin;  // "router 'topk'" for an option of a plug-in, else ""
  std::string plugin_doc;
  std::string
      type;  // "integer", "number or schedule, or null", "softmax | sigmoid", "router: topk | soft", ...
  std::string default_text;  // inline YAML; "" for a section that is always on
  std::string range;         // ">= 0 and < 1" or ""
  std::string doc;
  std::vector<std::string> aliases;
  std::string guard_reason;  // why the key can be refused; "" when it cannot
  bool required = false;
  bool is_section = false;
  bool takes_schedule = false;
};

// All keys in the order of declaration, sections before their keys. A plug-in's own plug-ins of the same
// table are not listed again.
std::vector<KeyInfo> all_keys(const std::function<void(Fields&)>& declare, const Tables* tables);

// JSON Schema (draft 2020-12) of a configuration file for editors. Nothing but the `type` of a plug-in is
// required in it, since a file may be a patch on its `base`; guards and conditions over several keys are not
// expressible and stay with the reader.
std::string json_schema(const std::function<void(Fields&)>& declare, const Tables* tables,
                        const std::string& title);

// The reference page in Markdown: a table of keys a section, a section a plug-in, the keys that take
// schedules.
std::string reference_page(const std::function<void(Fields&)>& declare, const Tables* tables,
                           const std::string& title);

// What `conclave config explain KEY` prints: path, type, default, range, alias and documentation, once for
// every plug-in that has the key; a section lists its keys. Throws ConfigError for an unknown key, with the
// full path of the keys that end like it or the nearest one.
std::string explain_key(const std::function<void(Fields&)>& declare, const Tables* tables,
                        const std::string& key);

}  // namespace conclave::config
