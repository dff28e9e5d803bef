// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "conclave/config/node.h"

namespace conclave::config {

struct Problem {
  Origin origin;
  std::string message;  // one line, names the key and the value
  std::string remedy;   // one line, what to do; may be empty
  std::string
      key;  // full path of a key that exists, so that its documentation can be pointed to; may be empty
};

// Collects every mistake before anything is thrown, so that a user mends a file in one go.
class Problems {
 public:
  void add(Origin origin, std::string message, std::string remedy = "", std::string key = "");
  bool empty() const { return problems_.empty(); }
  const std::vector<Problem>& all() const { return problems_; }

  // Something to know that is no mistake (an alias was used). Notes never throw.
  void note(Origin origin, std::string message);
  const std::vector<Problem>& notes() const { return notes_; }
  // "file:line:col: note: ..." for the log, one line each.
  std::vector<std::string> note_lines() const;

  // "file:line:col: error: ..." with the source line, a caret and the remedy, in the order of the source;
  // ends with "N errors; nothing was started."
  std::string render() const;
  // Throws ConfigError(render()) unless empty.
  void throw_if_any() const;

 private:
  std::vector<Problem> problems_, notes_;
};

// The candidate nearest to `word` in Damerau-Levenshtein distance, or "" when none is near enough to be
// meant.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

// "unknown router 'tpk'; did you mean 'topk'? (known: dselect_k, topk)", for names that are not YAML keys.
std::string unknown_name(std::string_view what, std::string_view word, const std::vector<std::string>& known);

}  // namespace conclave::config
