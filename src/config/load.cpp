// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/load.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <utility>

#include <fmt/format.h>

#include "conclave/config/problems.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"

namespace conclave::config {

const Node* Node::find(std::string_view key) const {
  for (const auto& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}
Node* Node::find(std::string_view key) {
  return const_cast<Node*>(std::as_const(*this).find(key));
}

Node Node::scalar(std::string text, bool quoted) {
  Node node;
  node.kind = Kind::kScalar;
  node.text = std::move(text);
  node.quoted = quoted;
  return node;
}
Node Node::list(std::vector<Node> items) {
  Node node;
  node.kind = Kind::kList;
  node.items = std::move(items);
  return node;
}
Node Node::map() {
  Node node;
  node.kind = Kind::kMap;
  return node;
}

namespace {

[[noreturn]] void fail(const Origin& origin, std::string message, std::string remedy) {
  Problems problems;
  problems.add(origin, std::move(message), std::move(remedy));
  problems.throw_if_any();
  throw ConfigError("unreachable");
}

void merge_into(Node& base, Node patch) {
  if (base.kind != Node::Kind::kMap || patch.kind != Node::Kind::kMap) {
    base = std::move(patch);
    return;
  }
  for (auto& entry : patch.entries) {
    if (Node* existing = base.find(entry.key)) {
      // Another plug-in starts from its own defaults, not from the options of the one it replaces.
      const Node *old_type = existing->find("type"), *new_type = entry.value.find("type");
      if (old_type && new_type && old_type->text != new_type->text) {
        *existing = std::move(entry.value);
      } else {
        merge_into(*existing, std::move(entry.value));
      }
    } else {
      base.entries.push_back(std::move(entry));
    }
  }
}

Node load_with_base(const std::filesystem::path& file, std::vector<std::filesystem::path> chain,
                    const Origin& asked) {
  const auto absolute = std::filesystem::weakly_canonical(file);
  if (std::find(chain.begin(), chain.end(), absolute) != chain.end()) {
    fail(asked, fmt::format("'base' leads back to {}", file.string()), "a file cannot be based on itself");
  }
  chain.push_back(absolute);
  std::string text;
  try {
    text = read_file(file);
  } catch (const Error& error) {
    fail(asked, error.what(), "check the path of the configuration file");
  }
  Node root = parse_yaml(file.string(), text);
  const auto it =
      std::find_if(root.entries.begin(), root.entries.end(), [](const auto& e) { return e.key == "base"; });
  if (it == root.entries.end()) return root;
  if (it->value.kind != Node::Kind::kScalar)
    fail(it->value.origin, "'base' names one file", "write base: other.yaml");
  Node base = load_with_base(file.parent_path() / it->value.text, chain, it->value.origin);
  root.entries.erase(it);
  merge_into(base, std::move(root));
  return base;
}

struct Override {
  enum class Kind { kSet, kAppend, kDelete } kind = Kind::kSet;
  std::vector<std::string> path;
  Node value;
  Origin origin;
};

void set_origins(Node& node, const Origin& origin) {
  node.origin = origin;
  for (auto& item : node.items) set_origins(item, origin);
  for (auto& entry : node.entries) {
    entry.origin = origin;
    set_origins(entry.value, origin);
  }
}

Override parse_override(const std::string& text) {
  Override o;
  auto source = std::make_shared<const Source>(Source{"command line", text});
  o.origin = {.source = source, .line = 1, .column = 1, .length = static_cast<int>(text.size())};
  std::string path = text;
  const auto equals = text.find('=');
  if (!text.empty() && text[0] == '~') {
    o.kind = Override::Kind::kDelete;
    path = text.substr(1);
    if (equals != std::string::npos) fail(o.origin, "'~key' deletes and takes no value", "write ~a.b");
  } else {
    if (equals == std::string::npos) {
      fail(o.origin, fmt::format("'{}' is not an override", text), "write a.b=c, +a.b=c or ~a.b");
    }
    if (text[0] == '+') o.kind = Override::Kind::kAppend;
    path = text.substr(text[0] == '+' ? 1 : 0, equals - (text[0] == '+' ? 1 : 0));
    Node wrapper = parse_yaml("command line", "value: " + text.substr(equals + 1));
    o.value = std::move(wrapper.entries.front().value);
    set_origins(o.value, o.origin);
  }
  for (size_t begin = 0; begin <= path.size();) {
    const auto dot = std::min(path.find('.', begin), path.size());
    o.path.push_back(path.substr(begin, dot - begin));
    if (o.path.back().empty())
      fail(o.origin, fmt::format("'{}' has an empty part in its path", text), "write a.b=c");
    begin = dot + 1;
  }
  return o;
}

Node* step_into(Node& node, const std::string& part, const Override& o, bool create) {
  if (node.kind == Node::Kind::kList) {
    size_t index = 0;
    for (const char c : part) {
      if (c < '0' || c > '9')
        fail(o.origin, fmt::format("'{}' is not an index of a list", part), "write a.0=c");
      index = index * 10 + static_cast<size_t>(c - '0');
    }
    if (index >= node.items.size()) {
      fail(o.origin, fmt::format("the list has {} items, there is no item {}", node.items.size(), part),
           "append with +a.b=c");
    }
    return &node.items[index];
  }
  if (node.kind == Node::Kind::kNull && create) node.kind = Node::Kind::kMap;
  if (node.kind != Node::Kind::kMap)
    fail(o.origin, fmt::format("'{}' lies below a plain value", part), "check the path");
  if (Node* existing = node.find(part)) return existing;
  if (!create) fail(o.origin, fmt::format("there is no '{}' to delete", part), "");
  node.entries.push_back({part, o.origin, Node{}});
  return &node.entries.back().value;
}

void apply(Node& root, Override o) {
  Node* node = &root;
  const bool create = o.kind != Override::Kind::kDelete;
  for (size_t i = 0; i + 1 < o.path.size(); ++i) node = step_into(*node, o.path[i], o, create);
  if (o.kind == Override::Kind::kDelete) {
    const Node* target = step_into(*node, o.path.back(), o, false);
    if (node->kind == Node::Kind::kList) {
      node->items.erase(node->items.begin() + (target - node->items.data()));
    } else {
      std::erase_if(node->entries, [&](const auto& e) { return e.key == o.path.back(); });
    }
    return;
  }
  Node* target = step_into(*node, o.path.back(), o, true);
  if (o.kind == Override::Kind::kSet) {
    merge_into(*target, std::move(o.value));
    return;
  }
  if (target->kind == Node::Kind::kNull) target->kind = Node::Kind::kList;
  if (target->kind != Node::Kind::kList)
    fail(o.origin, "'+' appends to lists only", "set the value with a.b=c");
  target->items.push_back(std::move(o.value));
}

class Interpolation {
 public:
  explicit Interpolation(const Node& root) : root_(root) {}

  void run(Node& node) {
    if (node.kind == Node::Kind::kScalar && node.text.find("${") != std::string::npos) {
      node.text = expand(node.text, node.origin, 0);
    }
    for (auto& item : node.items) run(item);
    for (auto& entry : node.entries) run(entry.value);
  }

 private:
  std::string expand(const std::string& text, const Origin& origin, int depth) {
    if (depth > 16) fail(origin, "references lead in a circle", "");
    std::string out;
    size_t at = 0;
    while (true) {
      const auto open = text.find("${", at);
      if (open == std::string::npos) return out + text.substr(at);
      const auto close = text.find('}', open);
      if (close == std::string::npos) fail(origin, "'${' without '}'", "");
      out += text.substr(at, open - at) + look_up(text.substr(open + 2, close - open - 2), origin, depth);
      at = close + 1;
    }
  }

  std::string look_up(const std::string& name, const Origin& origin, int depth) {
    if (name.rfind("env:", 0) == 0) {
      const auto comma = name.find(',');
      const std::string variable = name.substr(4, comma == std::string::npos ? comma : comma - 4);
      if (const char* value = std::getenv(variable.c_str())) return value;
      if (comma != std::string::npos) return name.substr(comma + 1);
      fail(origin, fmt::format("environment variable {} is not set", variable),
           fmt::format("set it, or give a default: ${{env:{},default}}", variable));
    }
    const Node* node = &root_;
    for (size_t begin = 0; begin <= name.size() && node;) {
      const auto dot = std::min(name.find('.', begin), name.size());
      node = node->find(name.substr(begin, dot - begin));
      begin = dot + 1;
    }
    if (!node || node->kind != Node::Kind::kScalar) {
      fail(origin, fmt::format("'${{{}}}' names no plain value of this file", name), "");
    }
    return expand(node->text, node->origin, depth + 1);
  }

  const Node root_;
};

}  // namespace

Node load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  auto asked = std::make_shared<const Source>(Source{"command line", file.string()});
  Node root = load_with_base(
      file, {}, {.source = asked, .line = 1, .column = 1, .length = static_cast<int>(file.string().size())});
  for (const auto& text : overrides) apply(root, parse_override(text));
  Interpolation(root).run(root);
  return root;
}

std::vector<std::string> differences(const Node& before, const Node& after) {
  std::vector<std::string> lines;
  const auto text_of = [](const Node* node) {
    return node ? emit_yaml_inline(*node) : std::string("(absent)");
  };
  const std::function<void(const Node*, const Node*, const std::string&)> compare =
      [&](const Node* a, const Node* b, const std::string& path) {
        if (a && b && a->kind == Node::Kind::kMap && b->kind == Node::Kind::kMap) {
          std::vector<std::string> keys;
          for (const auto& e : a->entries) keys.push_back(e.key);
          for (const auto& e : b->entries) {
            if (!a->find(e.key)) keys.push_back(e.key);
          }
          for (const auto& key : keys)
            compare(a->find(key), b->find(key), path.empty() ? key : path + "." + key);
        } else if (text_of(a) != text_of(b)) {
          lines.push_back(fmt::format("{}: {} -> {}", path, text_of(a), text_of(b)));
        }
      };
  compare(&before, &after, "");
  return lines;
}

}  // namespace conclave::config
