// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/problems.h"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "conclave/config/utf8.h"
#include "conclave/core/error.h"

namespace conclave::config {

void Problems::add(Origin origin, std::string message, std::string remedy, std::string key) {
  problems_.push_back({std::move(origin), std::move(message), std::move(remedy), std::move(key)});
}

void Problems::note(Origin origin, std::string message) {
  notes_.push_back({std::move(origin), std::move(message), "", ""});
}

namespace {

constexpr size_t kShownBytes = 160;  // of a source line

std::string_view line_of(std::string_view text, int line) {
  size_t begin = 0;
  for (int i = 1; i < line; ++i) {
    begin = text.find('\n', begin);
    if (begin == std::string_view::npos) return {};
    ++begin;
  }
  text = text.substr(begin, text.find('\n', begin) - begin);
  if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
  return text;
}

// Moves back to the begin of the character that text[at] belongs to.
size_t character_begin(std::string_view text, size_t at) {
  while (at > 0 && at < text.size() && (static_cast<unsigned char>(text[at]) >> 6) == 2) --at;
  return std::min(at, text.size());
}

size_t num_columns(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(),
                                           [](char c) { return (static_cast<unsigned char>(c) >> 6) != 2; }));
}

// One column a character, so that the caret line stays aligned; tabs are kept on both lines.
std::string one_column_each(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = std::max<size_t>(utf8_length(text, i), 1);
    out += text[i] == '\t' ? "\t" : printable(text.substr(i, length));
    i += length;
  }
  return out;
}

// The source line and a caret below the place; a window of a long line.
std::string excerpt(const Origin& origin) {
  const std::string_view whole = line_of(origin.source->text, origin.line);
  if (whole.empty()) return "";
  const size_t at = character_begin(whole, static_cast<size_t>(std::max(origin.column - 1, 0)));
  size_t begin = 0;
  size_t end = whole.size();
  if (whole.size() > kShownBytes) {
    begin = character_begin(whole, at > kShownBytes / 2 ? at - kShownBytes / 2 : 0);
    end = character_begin(whole, begin + kShownBytes);
  }
  const size_t marked_end = std::min(end, at + static_cast<size_t>(std::max(origin.length, 1)));
  std::string pad(begin > 0 ? 3 : 0, ' ');
  for (size_t i = begin; i < at; ++i) {
    if ((static_cast<unsigned char>(whole[i]) >> 6) != 2) pad += whole[i] == '\t' ? '\t' : ' ';
  }
  const size_t width =
      std::max<size_t>(marked_end > at ? num_columns(whole.substr(at, marked_end - at)) : 1, 1);
  return fmt::format("{:5} | {}{}{}\n      | {}^{}\n", origin.line, begin > 0 ? "..." : "",
                     one_column_each(whole.substr(begin, end - begin)), end < whole.size() ? "..." : "", pad,
                     std::string(width - 1, '~'));
}

std::string head_of(const Problem& problem, const char* kind) {
  const Origin& o = problem.origin;
  if (!o.source) return fmt::format("{}: {}", kind, problem.message);
  return fmt::format("{}:{}:{}: {}: {}", o.source->name, o.line, o.column, kind, problem.message);
}

// Files in the order in which they first have a problem, places in the order of the file.
std::vector<const Problem*> in_source_order(const std::vector<Problem>& problems) {
  std::vector<const Source*> sources;
  std::vector<const Problem*> sorted;
  for (const auto& p : problems) {
    sorted.push_back(&p);
    if (std::find(sources.begin(), sources.end(), p.origin.source.get()) == sources.end())
      sources.push_back(p.origin.source.get());
  }
  const auto place = [&](const Problem* p) {
    const auto source = std::find(sources.begin(), sources.end(), p->origin.source.get()) - sources.begin();
    return std::tuple(source, p->origin.line, p->origin.column);
  };
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const Problem* a, const Problem* b) { return place(a) < place(b); });
  return sorted;
}

}  // namespace

std::string Problems::render() const {
  std::string out, key;
  for (const Problem* p : in_source_order(problems_)) {
    out += head_of(*p, "error") + "\n";
    if (p->origin.source) out += excerpt(p->origin);
    if (!p->remedy.empty()) out += fmt::format("   {}\n", p->remedy);
    if (key.empty()) key = p->key;
  }
  out += fmt::format("{} error{}; nothing was started.", problems_.size(), problems_.size() == 1 ? "" : "s");
  if (!key.empty()) out += fmt::format(" See 'conclave config explain {}'.", key);
  return out;
}

std::vector<std::string> Problems::note_lines() const {
  std::vector<std::string> lines;
  for (const Problem* p : in_source_order(notes_)) lines.push_back(head_of(*p, "note"));
  return lines;
}

void Problems::throw_if_any() const {
  if (!problems_.empty()) throw ConfigError(render());
}

}  // namespace conclave::config
