// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "conclave/config/load.h"
#include "conclave/config/overrides.h"
#include "conclave/config/utf8.h"

namespace conclave::config {

namespace {

constexpr size_t kMaxExpandedBytes = size_t{1} << 16;

// A frozen configuration is copied around with results; a name such as HF_TOKEN or S3_ACCESS_KEY says that
// its value must not be. NUM_TOKENS does not.
bool looks_secret(const std::string& variable) {
  static constexpr std::string_view kEndings[] = {"TOKEN",      "SECRET",      "PASSWORD",
                                                  "PASSWD",     "CREDENTIALS", "API_KEY",
                                                  "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY"};
  for (const auto ending : kEndings) {
    if (variable.size() < ending.size() || !variable.ends_with(ending)) continue;
    if (variable.size() == ending.size() || variable[variable.size() - ending.size() - 1] == '_') return true;
  }
  return false;
}

class Interpolation {
 public:
  Interpolation(Node& root, const Node* defaults, Problems& problems)
      : root_(root), defaults_(defaults ? *defaults : Node::map()), problems_(problems) {}

  void run(Node& node) {
    if (node.kind == Node::Kind::kScalar) resolve(node);
    for (auto& item : node.items) run(item);
    for (auto& entry : node.entries) run(entry.value);
  }

 private:
  enum class State { kOpen, kDone };
  struct Piece {
    std::string text;
    bool quoted = false;
  };

  // Replaces the references of one scalar once. False when that failed or is under way (a circle).
  bool resolve(Node& node) {
    if (const auto [it, fresh] = states_.emplace(&node, State::kOpen); !fresh)
      return it->second == State::kDone;
    bool good = true;
    if (node.text.find("${") != std::string::npos) {
      const std::string written = node.text;
      std::string out;
      for (size_t at = 0; at < written.size() && good;) good = take_piece(node, written, at, out);
      if (good) node.text = std::move(out);
      if (good && !node.quoted && (node.text.empty() || node.text == "~" || node.text == "null")) {
        node.kind = Node::Kind::kNull;
        node.text.clear();
      }
    }
    if (good) states_[&node] = State::kDone;
    return good;
  }

  bool take_piece(Node& node, const std::string& written, size_t& at, std::string& out) {
    const size_t open = written.find("${", at);
    out += written.substr(at, open == std::string::npos ? open : open - at);
    if (open == std::string::npos) return at = open, true;
    const size_t close = written.find('}', open);
    if (close == std::string::npos)
      return fail(node.origin, "'${' without '}'", "write ${a.b} or ${env:VAR,default}");
    const auto piece = look_up(written.substr(open + 2, close - open - 2), node.origin);
    if (!piece) return false;
    if (open == 0 && close + 1 == written.size() && piece->quoted) node.quoted = true;
    out += piece->text;
    if (out.size() > kMaxExpandedBytes)
      return fail(node.origin,
                  fmt::format("references make this text longer than {} bytes", kMaxExpandedBytes), "");
    at = close + 1;
    return true;
  }

  std::optional<Piece> look_up(const std::string& name, const Origin& origin) {
    if (name.starts_with("env:")) return look_up_environment(name.substr(4), origin);
    Node* node = const_cast<Node*>(find_path(root_, name));
    if (!node) node = const_cast<Node*>(find_path(defaults_, name));
    if (!node || node->kind != Node::Kind::kScalar) {
      fail(origin, fmt::format("'${{{}}}' names no plain value of this configuration", printable(name)),
           "write the full path of a key that is set, such as ${run.name}; the environment is "
           "${env:VAR,default}");
      return std::nullopt;
    }
    const auto state = states_.find(node);
    if (state != states_.end() && state->second == State::kOpen) {
      fail(origin, fmt::format("'${{{}}}' leads in a circle back to itself", printable(name)),
           "write one of the values out");
      return std::nullopt;
    }
    if (!resolve(*node)) return std::nullopt;  // told at its own place
    return Piece{node->text, node->quoted};
  }

  std::optional<Piece> look_up_environment(const std::string& request, const Origin& origin) {
    const size_t comma = request.find(',');
    const std::string variable = request.substr(0, comma);
    if (looks_secret(variable)) {
      fail(
          origin,
          fmt::format("environment variable {} looks like a secret, and this value would be written into the "
                      "run directory",
                      printable(variable)),
          "let the program that needs it read it from the environment");
      return std::nullopt;
    }
    if (const char* value = std::getenv(variable.c_str())) {
      const std::string name = printable(variable);
      if (first_invalid_utf8(value) != std::string::npos) {
        fail(origin, fmt::format("environment variable {} is not valid UTF-8", name), "set it to UTF-8 text");
      } else if (std::string_view(value).find("${") != std::string_view::npos) {
        fail(origin, fmt::format("environment variable {} contains '${{'", name),
             "a frozen copy with it would be read as a reference");
      } else {
        return Piece{value};
      }
      return std::nullopt;
    }
    if (comma != std::string::npos) return Piece{request.substr(comma + 1)};
    fail(origin, fmt::format("environment variable {} is not set", printable(variable)),
         fmt::format("set it, or give a default: ${{env:{},default}}", printable(variable)));
    return std::nullopt;
  }

  bool fail(const Origin& origin, std::string message, std::string remedy) {
    problems_.add(origin, std::move(message), std::move(remedy));
    return false;
  }

  Node& root_;
  Node defaults_;
  Problems& problems_;
  std::map<const Node*, State> states_;
};

}  // namespace

void interpolate(Node& tree, const Node* defaults, Problems& problems) {
  Interpolation(tree, defaults, problems).run(tree);
}

}  // namespace conclave::config
