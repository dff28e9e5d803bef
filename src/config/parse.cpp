// SPDX-License-Identifier: Apache-2.0
// The only file that knows yaml-cpp. It loads one value where YAML allows much more: what a configuration
// file does not need (anchors, merge keys, tags, several documents) is refused with its position instead of
// half understood.
#include <sstream>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <fmt/format.h>

#include "conclave/config/load.h"
#include "conclave/config/problems.h"

namespace conclave::config {

namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 64;

// Byte offset of the first invalid UTF-8 sequence, or npos.
size_t invalid_utf8(const std::string& text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto c = static_cast<unsigned char>(text[i]);
    const int extra = c < 0x80 ? 0 : (c >> 5) == 6 ? 1 : (c >> 4) == 14 ? 2 : (c >> 3) == 30 ? 3 : -1;
    if (extra < 0 || c == 0xC0 || c == 0xC1 || c > 0xF4) return i;
    for (int k = 1; k <= extra; ++k) {
      if (i + k >= text.size() || (static_cast<unsigned char>(text[i + k]) >> 6) != 2) return i;
    }
    i += 1 + static_cast<size_t>(extra);
  }
  return std::string::npos;
}

Origin origin_of(const std::shared_ptr<const Source>& source, const YAML::Mark& mark, size_t length) {
  return {.source = source,
          .line = mark.line + 1,
          .column = mark.column + 1,
          .length = static_cast<int>(std::max<size_t>(length, 1))};
}

class Converter {
 public:
  Converter(std::shared_ptr<const Source> source, Problems& problems)
      : source_(std::move(source)), problems_(problems) {}

  Node convert(const YAML::Node& yaml, int depth) {
    Node node;
    node.origin = origin_of(source_, yaml.Mark(), yaml.IsScalar() ? yaml.Scalar().size() : 1);
    if (depth > kMaxDepth) {
      problems_.add(node.origin, fmt::format("more than {} levels of nesting", kMaxDepth),
                    "flatten the file");
      return node;
    }
    const std::string& tag = yaml.Tag();
    if (!tag.empty() && tag != "?" && tag != "!") {
      problems_.add(node.origin, fmt::format("YAML tag '{}' is not supported", tag), "write the plain value");
    }
    if (yaml.IsScalar()) {
      node.kind = Node::Kind::kScalar;
      node.text = yaml.Scalar();
      node.quoted = tag == "!";
    } else if (yaml.IsSequence()) {
      node.kind = Node::Kind::kList;
      for (const auto& item : yaml) node.items.push_back(convert(item, depth + 1));
    } else if (yaml.IsMap()) {
      convert_map(yaml, depth, node);
    }
    return node;
  }

 private:
  void convert_map(const YAML::Node& yaml, int depth, Node& node) {
    node.kind = Node::Kind::kMap;
    for (const auto& entry : yaml) {
      const Origin at =
          origin_of(source_, entry.first.Mark(), entry.first.IsScalar() ? entry.first.Scalar().size() : 1);
      if (!entry.first.IsScalar()) {
        problems_.add(at, "a key must be a plain word", "");
        continue;
      }
      const std::string& key = entry.first.Scalar();
      if (key == "<<") {
        problems_.add(at, "merge keys ('<<') are not supported", "use 'base:' for shared settings");
        continue;
      }
      if (const Node* earlier = node.find(key)) {
        problems_.add(at, fmt::format("key '{}' stands twice (first on line {})", key, earlier->origin.line),
                      "keep one of the two");
        continue;
      }
      node.entries.push_back({key, at, convert(entry.second, depth + 1)});
    }
  }

  std::shared_ptr<const Source> source_;
  Problems& problems_;
};

// yaml-cpp resolves aliases silently, so they are found in the event stream.
class AliasFinder : public YAML::EventHandler {
 public:
  AliasFinder(std::shared_ptr<const Source> source, Problems& problems)
      : source_(std::move(source)), problems_(problems) {}
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { refuse(mark, anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override { refuse(mark, anchor); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                const std::string&) override {
    refuse(mark, anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    refuse(mark, anchor);
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    refuse(mark, anchor);
  }
  void OnMapEnd() override {}

 private:
  void refuse(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor == YAML::NullAnchor) return;
    problems_.add(origin_of(source_, mark, 1), "anchors and aliases are not supported",
                  "write the value out, or share settings through 'base:'");
  }
  std::shared_ptr<const Source> source_;
  Problems& problems_;
};

}  // namespace

Node parse_yaml(const std::string& name, const std::string& text) {
  auto source = std::make_shared<const Source>(Source{name, text});
  Problems problems;
  const Origin top{.source = source, .line = 1, .column = 1};
  if (text.size() > kMaxBytes) {
    problems.add(top, fmt::format("the file has {} bytes; at most {} are read", text.size(), kMaxBytes),
                 "a configuration is a small file; is this data?");
    problems.throw_if_any();
  }
  if (const size_t bad = invalid_utf8(text); bad != std::string::npos) {
    problems.add(top, fmt::format("byte {} is not valid UTF-8", bad), "save the file as UTF-8");
    problems.throw_if_any();
  }
  Node root;
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    AliasFinder finder(source, problems);
    int documents = 0;
    while (parser.HandleNextDocument(finder)) ++documents;
    if (documents > 1) {
      problems.add(top, fmt::format("the file holds {} YAML documents", documents),
                   "keep one; remove the '---' lines");
    }
    problems.throw_if_any();
    root = Converter(source, problems).convert(YAML::Load(text), 0);
  } catch (const YAML::Exception& error) {
    problems.add(origin_of(source, error.mark.is_null() ? YAML::Mark() : error.mark, 1), error.msg,
                 "this is not well-formed YAML");
  }
  if (root.kind == Node::Kind::kNull && problems.empty()) root.kind = Node::Kind::kMap;
  if (root.kind != Node::Kind::kMap && problems.empty()) {
    problems.add(root.origin, "the top of the file must be a map of keys", "write 'key: value' lines");
  }
  problems.throw_if_any();
  return root;
}

}  // namespace conclave::config
