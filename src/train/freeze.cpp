// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/freeze.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/train/model_state.h"

namespace conclave::train {

bool matches_glob(const std::string& glob, const std::string& text) {
  size_t g = 0, t = 0, star = std::string::npos, after_star = 0;
  while (t < text.size()) {
    if (g < glob.size() && (glob[g] == '?' || (glob[g] == text[t] && glob[g] != '*'))) {
      ++g, ++t;
    } else if (g < glob.size() && glob[g] == '*') {
      star = g++;
      after_star = t;
    } else if (star != std::string::npos) {  // let the last star take one character more
      g = star + 1;
      t = ++after_star;
    } else {
      return false;
    }
  }
  return glob.find_first_not_of('*', g) == std::string::npos;
}

namespace {

// "layers_0.moe.experts.*.up_proj.weight" for the experts' own names, so that a list of all stays readable.
std::string without_expert(const std::string& name) {
  const std::string marker = ".experts.";
  const size_t begin = name.find(marker);
  if (begin == std::string::npos) return name;
  const size_t number = begin + marker.size();
  const size_t end = std::min(name.find('.', number), name.size());
  const bool digits = end > number && std::all_of(name.begin() + static_cast<long>(number),
                                                  name.begin() + static_cast<long>(end),
                                                  [](char c) { return c >= '0' && c <= '9'; });
  return digits ? fmt::format("{}*{}", name.substr(0, number), name.substr(end)) : name;
}

std::string all_names(const std::vector<nn::TaggedParameter>& parameters) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (const auto& parameter : parameters) {
    for (const auto& name : logical_names(parameter)) {
      if (seen.insert(without_expert(name)).second) names.push_back(without_expert(name));
    }
  }
  return fmt::format("{}", fmt::join(names, "\n  "));
}

// Whether the globs take the whole parameter. `used` learns which of them matched something.
bool is_frozen(const nn::TaggedParameter& parameter, const std::vector<std::string>& globs,
               std::set<std::string>& used) {
  std::string matched, left;
  for (const auto& name : logical_names(parameter)) {
    bool hit = false;
    for (const auto& glob : globs) {
      if (!matches_glob(glob, name)) continue;
      hit = true;
      used.insert(glob);
    }
    (hit ? matched : left) = name;
  }
  if (matched.empty() || left.empty()) return left.empty();
  throw ConfigError(
      fmt::format("training.freeze: '{}' is to be frozen, but '{}' is stored in the same tensor and is not; "
                  "freeze both (for "
                  "example '{}') or neither",
                  matched, left, parameter.name + "*"));
}

}  // namespace

void freeze_parameters(const std::vector<nn::TaggedParameter>& parameters,
                       const std::vector<std::string>& globs, const Log& log) {
  if (globs.empty()) return;
  std::set<std::string> used;
  std::vector<const nn::TaggedParameter*> frozen;
  int64_t values = 0;
  for (const auto& parameter : parameters) {
    if (!is_frozen(parameter, globs, used)) continue;
    frozen.push_back(&parameter);
    values += parameter.tensor.numel();
  }
  for (const auto& glob : globs) {
    if (used.count(glob)) continue;
    throw ConfigError(fmt::format("training.freeze: '{}' matches no parameter; there are:\n  {}", glob,
                                  all_names(parameters)));
  }
  if (frozen.size() == parameters.size())
    throw ConfigError("training.freeze: every parameter is frozen and nothing is left to train; freeze less");
  for (const auto* parameter : frozen) parameter->tensor.set_requires_grad(false);
  log.info(fmt::format("frozen: {} of {} tensors, {} values", frozen.size(), parameters.size(), values));
}

}  // namespace conclave::train
