// SPDX-License-Identifier: Apache-2.0
// The only file that knows yaml-cpp. The tree is built from the event stream, because the loaded tree of
// yaml-cpp hides what has to be refused with its position (duplicate keys, aliases, tags, further documents)
// instead of being half understood.
#include "conclave/config/parse.h"

#include <algorithm>
#include <optional>
#include <sstream>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <fmt/format.h>

#include "conclave/config/load.h"
#include "conclave/config/utf8.h"

namespace conclave::config {

namespace {

constexpr size_t kMaxDepth = 100;

// Thrown (and caught here) when reading on makes no sense; the reason is already a problem.
struct StopParsing {};

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(std::shared_ptr<const Source> source, size_t begin, Problems& problems)
      : source_(std::move(source)), begin_(begin), problems_(problems) {}

  std::optional<Node> take_root() { return std::move(root_); }

  Origin origin_of(const YAML::Mark& mark, size_t length = 1) const {
    if (mark.is_null()) return {.source = source_, .line = 1, .column = 1};
    const int shift = mark.line == 0 ? static_cast<int>(begin_) : 0;
    return {.source = source_,
            .line = mark.line + 1,
            .column = mark.column + 1 + shift,
            .length = static_cast<int>(std::max<size_t>(length, 1))};
  }
  char written_at(const YAML::Mark& mark) const {
    const size_t at = begin_ + static_cast<size_t>(std::max(mark.pos, 0));
    return at < source_->text.size() ? source_->text[at] : '\0';
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (num_documents_++ == 0) return;
    problems_.add(origin_of(mark, 3), "a second YAML document starts here",
                  "keep one document; remove the '---' line or what follows it");
    throw StopParsing{};
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse_properties(mark, "");
    // A value that is not there is found at its key: yaml-cpp marks the token that follows it.
    const bool after_key = !stack_.empty() && stack_.back().has_key;
    const bool absent = after_key && stack_.back().key_origin.line != mark.line + 1;
    Node node;
    node.origin = absent ? stack_.back().key_origin : origin_of(mark, written_at(mark) == '~' ? 1 : 4);
    attach(std::move(node), true);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse_properties(mark, "");
    Node node;
    node.origin = origin_of(mark);
    attach(std::move(node), false);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& text) override {
    refuse_properties(mark, tag);
    Node node = Node::scalar(text, tag == "!");
    node.origin = origin_of(mark, node.quoted ? quoted_length(mark) : text.size());
    attach(std::move(node), false);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(Node::list({}), mark, tag);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(Node::map(), mark, tag);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    Node node;
    bool has_key = false;     // kMap: the next value belongs to `key`
    bool drop_value = false;  // its key was refused
    std::string key = {};
    Origin key_origin = {};
  };

  void refuse_properties(const YAML::Mark& mark, const std::string& tag) {
    const char c = written_at(mark);
    if (c == '&' || c == '*') {
      problems_.add(origin_of(mark), "anchors and aliases are not supported",
                    "write the value out, or share settings through 'base:'");
    } else if (c == '!' || (tag != "" && tag != "?" && tag != "!")) {
      problems_.add(origin_of(mark), "YAML tags are not supported", "write the plain value; quote a string");
    }
  }

  size_t quoted_length(const YAML::Mark& mark) const {
    const std::string& text = source_->text;
    const size_t first = begin_ + static_cast<size_t>(std::max(mark.pos, 0));
    const char quote = written_at(mark);
    if (quote != '"' && quote != '\'') return 1;  // a block scalar: its '|' or '>'
    for (size_t i = first + 1; i < text.size() && text[i] != '\n'; ++i) {
      if (quote == '"' && text[i] == '\\') {
        ++i;
      } else if (text[i] == quote && quote == '\'' && i + 1 < text.size() && text[i + 1] == quote) {
        ++i;
      } else if (text[i] == quote) {
        return i + 1 - first;
      }
    }
    return 1;
  }

  void open(Node node, const YAML::Mark& mark, const std::string& tag) {
    refuse_properties(mark, tag);
    node.origin = origin_of(mark);
    if (stack_.size() >= kMaxDepth) {
      problems_.add(node.origin, fmt::format("more than {} levels of nesting", kMaxDepth),
                    "flatten the file");
      throw StopParsing{};
    }
    stack_.push_back({.node = std::move(node)});
  }

  void close() {
    Node node = std::move(stack_.back().node);
    stack_.pop_back();
    attach(std::move(node), false);
  }

  void attach(Node node, bool is_null) {
    if (stack_.empty()) {
      root_ = std::move(node);
    } else if (Frame& top = stack_.back(); top.node.kind == Node::Kind::kList) {
      top.node.items.push_back(std::move(node));
    } else if (!top.has_key) {
      take_key(top, node, is_null);
    } else {
      top.has_key = false;
      if (!top.drop_value) top.node.entries.push_back({std::move(top.key), top.key_origin, std::move(node)});
    }
  }

  void take_key(Frame& top, const Node& node, bool is_null) {
    top.has_key = true;
    top.drop_value = true;
    top.key = node.text;
    top.key_origin = node.origin;
    if (node.kind != Node::Kind::kScalar) {
      problems_.add(node.origin, is_null ? "null is not a key" : "a key must be a plain word",
                    "write 'key: value'; quote a value that contains brackets");
    } else if (node.text == "<<" && !node.quoted) {
      problems_.add(node.origin, "merge keys ('<<') are not supported", "share settings through 'base:'");
    } else if (const auto& all = top.node.entries; !all.empty() && top.node.find(node.text)) {
      const auto first =
          std::find_if(all.begin(), all.end(), [&](const auto& e) { return e.key == node.text; });
      problems_.add(node.origin,
                    fmt::format("key '{}' stands twice (first on line {}, again on line {})",
                                printable(node.text), first->origin.line, node.origin.line),
                    "keep one of the two");
    } else {
      top.drop_value = false;
    }
  }

  std::shared_ptr<const Source> source_;
  size_t begin_;
  Problems& problems_;
  int num_documents_ = 0;
  std::vector<Frame> stack_;
  std::optional<Node> root_;
};

}  // namespace

std::optional<Node> parse_value(const std::shared_ptr<const Source>& source, size_t begin,
                                Problems& problems) {
  if (!check_text(source, problems)) return std::nullopt;
  TreeBuilder builder(source, begin, problems);
  try {
    std::istringstream stream(source->text.substr(begin));
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const StopParsing&) {
  } catch (const YAML::Exception& error) {
    if (!error.mark.is_null() && builder.written_at(error.mark) == '*') {
      builder.OnAlias(error.mark, YAML::NullAnchor);
    } else {
      problems.add(
          builder.origin_of(error.mark), fmt::format("not well-formed YAML: {}", error.msg),
          "check the indentation, brackets and quotes here; quote a value that contains ': ', ' #' or '${'");
    }
  }
  return builder.take_root();
}

Node parse_yaml(const std::string& name, const std::string& text) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  const size_t skip = text.compare(0, kByteOrderMark.size(), kByteOrderMark) == 0 ? kByteOrderMark.size() : 0;
  const auto source = std::make_shared<const Source>(Source{name, text.substr(skip)});
  Problems problems;
  auto root = parse_value(source, 0, problems);
  problems.throw_if_any();
  const Origin top{.source = source, .line = 1, .column = 1};
  if (!root || root->kind == Node::Kind::kNull) {
    problems.add(top, "the file is empty", "write {} for a configuration of defaults only");
  } else if (root->kind != Node::Kind::kMap) {
    problems.add(root->origin, "the top of the file must be a map of keys", "write 'key: value' lines");
  }
  problems.throw_if_any();
  return std::move(*root);
}

}  // namespace conclave::config
