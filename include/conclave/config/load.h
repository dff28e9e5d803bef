// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "conclave/config/node.h"
#include "conclave/config/problems.h"

namespace conclave::config {

// Parses one YAML text strictly: valid UTF-8, at most 1 MiB, at most 100 levels, one document whose top is a
// map, no duplicate keys, no anchors, aliases or merge keys, no tags. Throws ConfigError with every problem
// found.
Node parse_yaml(const std::string& name, const std::string& text);

// Reads a file the way `conclave train FILE a.b=c ...` does:
//   1. the file and, depth first, the file that its `base:` names (relative to it). Maps merge, lists
//   replace;
//      a map that names another `type` (or `schedule`) than the one below it replaces it whole, since the
//      options of one plug-in mean nothing to another;
//   2. overrides in order: `a.b=c` sets (c is YAML; nothing: null; a map merges), `+a.b=c` appends one item
//      to a list, `~a.b` deletes, `a.2.b=c` reaches into a list; what is not there is created on the way;
//   3. references, see interpolate().
// `defaults` (a dump of the options nobody has touched; may be null) supplies the lists that `+a.b=c` and
// `a.2.b=c` extend and the values that `${a.b}` names where the file is silent.
// Every node keeps the place where it was written. Throws ConfigError with every problem found.
Node load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                 const Node* defaults = nullptr);

// Replaces, in every scalar, `${env:VAR}` and `${env:VAR,default}` by the environment's text and `${a.b}` by
// the scalar at that path of `tree` (or else of `defaults`). A plain scalar is typed after replacement, a
// quoted one stays a string. Circles, unset variables, and variables whose name says that they hold a secret
// (it would end up in the frozen copy) are problems.
void interpolate(Node& tree, const Node* defaults, Problems& problems);

// Spellings that stand in another place than the key they mean ("model.num_experts_per_tok" for
// "model.moe.router.top_k"): each written `first` is moved to `second`, with a note. Both written: a problem.
void relocate_keys(Node& tree, const std::vector<std::pair<std::string, std::string>>& moves,
                   Problems& problems);

// What differs between two trees, one line a key ("training.lr: 1.0e-03 -> 2.0e-03"), for `config diff` and
// for the refusal to continue a run with another config. Numbers are compared by value.
std::vector<std::string> differences(const Node& before, const Node& after);

}  // namespace conclave::config
