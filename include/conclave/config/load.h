// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "conclave/config/node.h"

namespace conclave::config {

// Parses one YAML text strictly: valid UTF-8, at most 1 MiB, one document whose top is a map, no duplicate
// keys, no anchors, aliases or merge keys, no tags. Throws ConfigError with every problem found.
Node parse_yaml(const std::string& name, const std::string& text);

// Reads a file the way `conclave train FILE a.b=c ...` does:
//   1. the file and, depth first, the file that its `base:` names (relative to it); maps merge, lists
//   replace;
//   2. overrides in order: `a.b=c` sets (c is YAML), `+a.b=c` appends to a list, `~a.b` deletes, `a.2.b=c`
//   reaches
//      into a list; overriding what is not there creates the maps on the way;
//   3. `${env:VAR}` and `${env:VAR,default}`, and `${a.b}`, which names another scalar of the tree, in
//   strings.
// Every node keeps the place where it was written. Throws ConfigError with every problem found.
Node load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides);

// What differs between two trees, one line a key ("training.lr: 1.0e-03 -> 2.0e-03"), for `config diff` and
// for the refusal to continue a run with another config.
std::vector<std::string> differences(const Node& before, const Node& after);

}  // namespace conclave::config
