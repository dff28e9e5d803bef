// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/config/fields.h"

// Reading and writing of `{type: NAME, ...}`. Internal to the config room.
namespace conclave::config {

// The table of that name; throws Error when the program passed none (a mistake of the program, not the user).
const std::vector<PluginInfo>& plugin_table(const Tables* tables, const std::string& kind);
const PluginInfo* find_plugin(const Tables* tables, const std::string& kind, const std::string& name);
std::vector<std::string> plugin_names(const Tables* tables, const std::string& kind);

// "routers" -> "router", "aux_losses" -> "aux_loss".
std::string singular(const std::string& kind);

// Without `type` the member's present plug-in and options stay (an error when it has none); with it the
// options start from the plug-in's defaults. Null means `{type: none}` where the table has a plug-in 'none'.
void read_plugin(const Node& node, const std::string& path, Problems& problems, const Tables* tables,
                 const std::string& kind, Plugin& member);
Node write_plugin(Plugin& member, const Tables* tables, const std::string& kind, const Node* written);

// The fields of the member's plug-in, of its defaults when it has no options yet; `type` is not among them.
void declare_plugin(Plugin& member, const Tables* tables, const std::string& kind, Fields& f);

// What to say of a key that the struct does not have; nothing when the usual message will do.
using UnknownKey = std::function<bool(const Node::Entry& entry, const std::string& path)>;

// read_fields, asking `unknown` first about every unknown key.
void read_struct(const std::function<void(Fields&)>& declare, const Tables* tables, const Node& node,
                 const std::string& path, Problems& problems, const UnknownKey& unknown);

}  // namespace conclave::config
