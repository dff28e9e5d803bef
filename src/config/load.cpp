// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/load.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/config/overrides.h"
#include "conclave/config/utf8.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"

namespace conclave::config {

namespace {

using Paths = std::vector<std::filesystem::path>;

[[noreturn]] void fail_at(const Origin& origin, std::string message, std::string remedy) {
  Problems problems;
  problems.add(origin, std::move(message), std::move(remedy));
  throw ConfigError(problems.render());
}

std::string read_config_file(const std::filesystem::path& file, const Origin& asked) {
  try {
    return read_file(file);
  } catch (const Error& error) {
    fail_at(asked, error.what(), "check the path of the configuration file");
  }
}

Node load_with_base(const std::filesystem::path& file, Paths chain, const Origin& asked) {
  std::error_code ignored;
  const auto absolute = std::filesystem::weakly_canonical(file, ignored);
  if (std::find(chain.begin(), chain.end(), absolute) != chain.end()) {
    std::string circle;
    for (const auto& link : chain) circle += link.filename().string() + " -> ";
    fail_at(asked, fmt::format("'base' leads in a circle: {}{}", circle, absolute.filename().string()),
            "a file cannot be based on itself");
  }
  chain.push_back(absolute);
  Node root = parse_yaml(file.string(), read_config_file(file, asked));
  const auto it =
      std::find_if(root.entries.begin(), root.entries.end(), [](const auto& e) { return e.key == "base"; });
  if (it == root.entries.end()) return root;
  const Node named = it->value;
  if (named.kind != Node::Kind::kScalar || named.text.empty() || named.text.find("${") != std::string::npos) {
    fail_at(named.origin, fmt::format("'base' names one file, got {}", printable(emit_yaml_inline(named))),
            "write base: other.yaml, relative to this file and without references");
  }
  root.entries.erase(it);
  Node base = load_with_base(file.parent_path() / named.text, chain, named.origin);
  merge_into(base, std::move(root));
  return base;
}

Origin origin_of_argument(const std::filesystem::path& file) {
  const auto source = std::make_shared<const Source>(Source{"command line", file.string()});
  return {.source = source,
          .line = 1,
          .column = 1,
          .length = static_cast<int>(std::max<size_t>(source->text.size(), 1))};
}

}  // namespace

Node load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                 const Node* defaults) {
  Node root = load_with_base(file, {}, origin_of_argument(file));
  Problems problems;
  for (const auto& text : overrides) apply_override(root, text, defaults, problems);
  interpolate(root, defaults, problems);
  problems.throw_if_any();
  return root;
}

}  // namespace conclave::config
