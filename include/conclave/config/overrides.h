// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "conclave/config/problems.h"

// Internal to the config room.
namespace conclave::config {

// Lays `patch` over `base`; see load_config for the rules.
void merge_into(Node& base, Node patch);

// One `a.b=c`, `+a.b=c` or `~a.b` of the command line; problems carry carets into its text.
void apply_override(Node& root, const std::string& text, const Node* defaults, Problems& problems);

// The node at a dotted path; parts that are numbers reach into lists. Null when there is none.
const Node* find_path(const Node& node, std::string_view path);

}  // namespace conclave::config
