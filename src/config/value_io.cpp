// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/value_io.h"

#include <fmt/format.h>

#include "conclave/config/scalars.h"
#include "conclave/config/utf8.h"
#include "conclave/core/error.h"

namespace conclave::config {

namespace {

constexpr const char* kNumberRemedy =
    "units are k, M, G, T and Ki, Mi, Gi, Ti, with or without a B behind; 1_000 and 1.0e-03 work too";

std::string described(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kNull:
      return "null";
    case Node::Kind::kList:
      return "a list";
    case Node::Kind::kMap:
      return "a section with keys";
    case Node::Kind::kScalar:
      break;
  }
  return node.quoted ? fmt::format("the string '{}'", printable(node.text))
                     : fmt::format("'{}'", printable(node.text));
}

template <class T, class Parse>
bool read_scalar(const Node& node, T& member, Parse parse) {
  if (node.kind != Node::Kind::kScalar || node.quoted) return false;
  const auto value = parse(node.text);
  if (value) member = *value;
  return value.has_value();
}

// A quoted number, or a whole number that only the size of an int64 keeps out, gets a remedy of its own.
std::string number_remedy(const Node& node) {
  if (node.kind != Node::Kind::kScalar) return kNumberRemedy;
  if (node.quoted && parse_number(node.text)) return "remove the quotes";
  if (!node.text.empty() && node.text.find_first_not_of("+-0123456789_kKMGTiB") == std::string::npos &&
      parse_number(node.text)) {
    return "whole numbers lie between -9223372036854775808 and 9223372036854775807";
  }
  return kNumberRemedy;
}

}  // namespace

void add_wrong_type(const Node& node, const std::string& path, Problems& problems,
                    const std::string& expected, std::string remedy) {
  problems.add(node.origin, fmt::format("{}: expected {}, got {}", path, expected, described(node)),
               std::move(remedy), path);
}

void read_value(const Node& node, const std::string& path, Problems& problems, bool& member) {
  if (!read_scalar(node, member, parse_boolean))
    add_wrong_type(node, path, problems, "true or false", "write true or false, without quotes");
}

void read_value(const Node& node, const std::string& path, Problems& problems, int64_t& member) {
  if (!read_scalar(node, member, parse_integer))
    add_wrong_type(node, path, problems, "a whole number", number_remedy(node));
}

void read_value(const Node& node, const std::string& path, Problems& problems, double& member) {
  if (read_scalar(node, member, parse_number)) return;
  if (node.find("schedule"))
    return add_wrong_type(node, path, problems, "a number", "this key takes no schedule; write one number");
  add_wrong_type(node, path, problems, "a number", number_remedy(node));
}

void read_value(const Node& node, const std::string& path, Problems& problems, std::string& member) {
  if (node.kind != Node::Kind::kScalar)
    return add_wrong_type(node, path, problems, "a string",
                          "quote it if it contains brackets, or is the word null");
  member = node.text;
}

void read_value(const Node& node, const std::string& path, Problems& problems, Value& member) {
  if (node.kind == Node::Kind::kMap) {
    Schedule schedule;
    const size_t before = problems.all().size();
    read_fields([&](Fields& f) { schedule.fields(f); }, nullptr, node, path, problems);
    if (problems.all().size() == before) member = Value(std::move(schedule));
    return;
  }
  double constant = 0;
  if (!read_scalar(node, constant, parse_number))
    return add_wrong_type(node, path, problems, "a number or a schedule", number_remedy(node));
  member = Value(constant);
}

void read_value(const Node& node, const std::string& path, Problems& problems,
                std::map<std::string, std::string>& member) {
  if (node.kind != Node::Kind::kMap)
    return add_wrong_type(node, path, problems, "a map of strings", "write {key: value, ...}");
  member.clear();
  for (const auto& entry : node.entries)
    read_value(entry.value, path + "." + entry.key, problems, member[entry.key]);
}

Node write_value(bool member) {
  return Node::scalar(member ? "true" : "false");
}
Node write_value(int64_t member) {
  return Node::scalar(fmt::format("{}", member));
}
Node write_value(double member) {
  return Node::scalar(format_number(member));
}
Node write_value(const std::string& member) {
  return Node::scalar(member, true);
}
Node write_value(const Value& member) {
  if (member.is_constant()) return write_value(member.at(0));
  Schedule schedule = member.schedule();
  return dump_fields([&](Fields& f) { schedule.fields(f); }, nullptr, nullptr);
}
Node write_value(const std::map<std::string, std::string>& member) {
  Node node = Node::map();
  for (const auto& [key, value] : member) node.entries.push_back({key, {}, write_value(value)});
  return node;
}

void take_origins(Node& node, const Node* written) {
  if (!written) return;
  node.origin = written->origin;
  for (auto& entry : node.entries) take_origins(entry.value, written->find(entry.key));
  for (size_t i = 0; i < node.items.size() && i < written->items.size(); ++i)
    take_origins(node.items[i], &written->items[i]);
}

}  // namespace conclave::config
