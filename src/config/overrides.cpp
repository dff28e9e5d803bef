// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/overrides.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "conclave/config/parse.h"
#include "conclave/config/utf8.h"

namespace conclave::config {

namespace {

using Kind = Node::Kind;

struct PathPart {
  std::string text;
  Origin origin;
};

struct Override {
  enum class Action { kSet, kAppend, kDelete } action = Action::kSet;
  std::vector<PathPart> path = {};
  Node value = {};
  Origin origin = {};  // of the whole text
};

// Splits `a.b.c` at [begin, end) of the override's text. False after adding a problem.
bool split_path(Override& o, size_t begin, size_t end, Problems& problems) {
  const std::string& text = o.origin.source->text;
  while (true) {
    const size_t dot = std::min(text.find('.', begin), end);
    Origin at = o.origin;
    at.column = static_cast<int>(begin) + 1;
    at.length = static_cast<int>(std::max<size_t>(dot - begin, 1));
    if (dot == begin) {
      problems.add(at, fmt::format("'{}' has an empty part in its path", printable(text)), "write a.b=c");
      return false;
    }
    o.path.push_back({text.substr(begin, dot - begin), at});
    if (dot == end) return true;
    begin = dot + 1;
  }
}

void place_at(Node& node, const Origin& origin) {
  if (!node.origin.source) node.origin = origin;
}

std::optional<Override> parse_override(const std::string& text, Problems& problems) {
  Override o;
  o.origin = {.source = std::make_shared<const Source>(Source{"command line", text}),
              .line = 1,
              .column = 1,
              .length = static_cast<int>(std::max<size_t>(text.size(), 1))};
  const size_t equals = text.find('=');
  const char first = text.empty() ? '\0' : text[0];
  if (first == '~' && equals != std::string::npos) {
    problems.add(o.origin, "'~key' deletes and takes no value", "write ~a.b");
    return std::nullopt;
  }
  if (first != '~' && equals == std::string::npos) {
    problems.add(o.origin, fmt::format("'{}' is not an override", printable(text)),
                 "write a.b=c to set, +a.b=c to append to a list, ~a.b to delete");
    return std::nullopt;
  }
  if (text.find('\n') < equals) {
    problems.add(o.origin, "a line end in the path of an override", "write a.b=c");
    return std::nullopt;
  }
  if (first == '~') o.action = Override::Action::kDelete;
  if (first == '+') o.action = Override::Action::kAppend;
  const size_t begin = o.action == Override::Action::kSet ? 0 : 1;
  if (!split_path(o, begin, std::min(equals, text.size()), problems)) return std::nullopt;
  if (o.action == Override::Action::kDelete) return o;
  if (equals + 1 < text.size()) {
    const size_t before = problems.all().size();
    auto value = parse_value(o.origin.source, equals + 1, problems);
    if (problems.all().size() != before) return std::nullopt;
    if (!value) {
      problems.add(o.origin, fmt::format("'{}' sets no value: the rest is a comment", printable(text)),
                   "quote a value that begins with '#'");
      return std::nullopt;
    }
    o.value = std::move(*value);
  }
  place_at(o.value, o.origin);
  return o;
}

// Walks and edits one tree for one override; null after adding a problem.
class Editor {
 public:
  Editor(const Override& o, const Node* defaults, Problems& problems)
      : override_(o), defaults_(defaults), problems_(problems) {}

  void apply(Node& root) {
    const auto& path = override_.path;
    Node* node = &root;
    for (size_t i = 0; i + 1 < path.size() && node; ++i) node = step(*node, path[i]);
    if (!node) return;
    if (override_.action == Override::Action::kDelete) return erase(*node, path.back());
    Node* target = step(*node, path.back());
    if (!target) return;
    if (override_.action == Override::Action::kSet) {
      merge_into(*target, override_.value);
    } else if (target->kind == Kind::kNull || target->kind == Kind::kList) {
      if (target->kind == Kind::kNull) target->origin = override_.origin;
      target->kind = Kind::kList;
      target->items.push_back(override_.value);
    } else {
      problems_.add(path.back().origin,
                    fmt::format("'{}' is not a list: '+' appends to lists only", dotted(path.size())),
                    "set the value with a.b=c");
    }
  }

 private:
  std::string dotted(size_t count) const {
    std::string out;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out += '.';
      out += printable(override_.path[i].text);
    }
    return out;
  }
  size_t depth_of(const PathPart& part) const { return static_cast<size_t>(&part - override_.path.data()); }

  Node* step(Node& node, const PathPart& part) {
    if (node.kind == Kind::kList) return item_of(node, part);
    if (node.kind == Kind::kNull) {
      node.kind = Kind::kMap;
      if (!node.origin.source) node.origin = override_.origin;
    }
    if (node.kind != Kind::kMap) {
      problems_.add(part.origin,
                    fmt::format("'{}' is a plain value, nothing can be set below it", dotted(depth_of(part))),
                    "check the path");
      return nullptr;
    }
    if (Node* existing = node.find(part.text)) return existing;
    node.entries.push_back({part.text, part.origin, default_list(part)});
    return &node.entries.back().value;
  }

  // A list that the file leaves at its default is extended, not replaced.
  Node default_list(const PathPart& part) const {
    const bool reaches_in = &part != &override_.path.back() || override_.action == Override::Action::kAppend;
    const Node* found = defaults_ && reaches_in ? find_path(*defaults_, dotted(depth_of(part) + 1)) : nullptr;
    return found && found->kind == Kind::kList ? *found : Node{};
  }

  Node* item_of(Node& list, const PathPart& part) {
    const bool is_index = part.text.size() <= 6 && std::all_of(part.text.begin(), part.text.end(),
                                                               [](char c) { return c >= '0' && c <= '9'; });
    size_t index = 0;
    for (const char c : part.text) index = index * 10 + static_cast<size_t>(c - '0');
    if (is_index && index < list.items.size()) return &list.items[index];
    const std::string name = dotted(depth_of(part));
    problems_.add(
        part.origin,
        is_index ? fmt::format("'{}' has {} items, there is no item {}", name, list.items.size(), part.text)
                 : fmt::format("'{}' is a list, and '{}' is no index of it", name, printable(part.text)),
        fmt::format("items count from 0; append with +{}=...", name));
    return nullptr;
  }

  void erase(Node& node, const PathPart& part) {
    if (node.kind == Kind::kList) {
      if (const Node* item = item_of(node, part))
        node.items.erase(node.items.begin() + (item - node.items.data()));
    } else if (std::erase_if(node.entries, [&](const auto& e) { return e.key == part.text; }) == 0) {
      std::vector<std::string> keys;
      for (const auto& entry : node.entries) keys.push_back(entry.key);
      const std::string near = nearest(part.text, keys);
      problems_.add(
          part.origin, fmt::format("there is no '{}' to delete", dotted(override_.path.size())),
          near.empty() ? "only what the file sets can be deleted" : fmt::format("did you mean '{}'?", near));
    }
  }

  const Override& override_;
  const Node* defaults_;
  Problems& problems_;
};

}  // namespace

void apply_override(Node& root, const std::string& text, const Node* defaults, Problems& problems) {
  const auto o = parse_override(text, problems);
  if (!o) return;
  if (o->path.front().text == "base") {
    problems.add(o->path.front().origin, "'base' cannot be set on the command line",
                 "write 'base: other.yaml' into the file");
    return;
  }
  if (o->action != Override::Action::kDelete) return Editor(*o, defaults, problems).apply(root);
  Node edited = root;  // a failed delete must not leave the sections that the walk created
  const size_t before = problems.all().size();
  Editor(*o, defaults, problems).apply(edited);
  if (problems.all().size() == before) root = std::move(edited);
}

}  // namespace conclave::config
