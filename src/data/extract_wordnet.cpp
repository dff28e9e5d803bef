// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <charconv>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/data/extract.h"
#include "markup.h"

namespace conclave::data {

namespace {

constexpr size_t kEntriesPerDocument = 64;

// Lexicographer files by number (the second field of a data line).
constexpr std::array<std::string_view, 45> kTopics = {
    "adj.all",          "adj.pert",           "adv.all",
    "noun.Tops",        "noun.act",           "noun.animal",
    "noun.artifact",    "noun.attribute",     "noun.body",
    "noun.cognition",   "noun.communication", "noun.event",
    "noun.feeling",     "noun.food",          "noun.group",
    "noun.location",    "noun.motive",        "noun.object",
    "noun.person",      "noun.phenomenon",    "noun.plant",
    "noun.possession",  "noun.process",       "noun.quantity",
    "noun.relation",    "noun.shape",         "noun.state",
    "noun.substance",   "noun.time",          "verb.body",
    "verb.change",      "verb.cognition",     "verb.communication",
    "verb.competition", "verb.consumption",   "verb.contact",
    "verb.creation",    "verb.emotion",       "verb.motion",
    "verb.perception",  "verb.possession",    "verb.social",
    "verb.stative",     "verb.weather",       "adj.ppl"};

[[noreturn]] void refuse_entry(std::string_view line, const char* why) {
  throw Error(fmt::format("not a WordNet data line ({}): '{}'", why, line.substr(0, 60)), Error::Kind::kData);
}

std::string_view take_word(std::string_view& rest) {
  const size_t end = std::min(rest.find(' '), rest.size());
  const std::string_view word = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return word;
}

unsigned wordnet_number(std::string_view line, std::string_view word, int base) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
  if (error != std::errc() || end != word.data() + word.size()) refuse_entry(line, "a number is missing");
  return value;
}

// "living_(a)" is "living": the mark says where an adjective may stand.
std::string lemma_text(std::string_view word) {
  for (const std::string_view mark : {"(a)", "(p)", "(ip)"}) {
    if (word.ends_with(mark)) word.remove_suffix(mark.size());
  }
  std::string text(word);
  replace_all(text, "_", " ");
  return text;
}

}  // namespace

std::optional<WordnetEntry> wordnet_entry(std::string_view line) {
  if (line.starts_with("  ") || line.empty()) return std::nullopt;
  std::string_view rest = line;
  take_word(rest);  // offset
  const unsigned topic = wordnet_number(line, take_word(rest), 10);
  take_word(rest);                                                   // part of speech
  const unsigned count = wordnet_number(line, take_word(rest), 16);  // hexadecimal, unlike the others
  if (topic >= kTopics.size()) refuse_entry(line, "its topic is unknown");
  WordnetEntry entry = {.topic = std::string(kTopics[topic])};
  for (unsigned i = 0; i < count; ++i) {
    if (i > 0) entry.line += ", ";
    entry.line += lemma_text(take_word(rest));
    take_word(rest);  // sense number
  }
  const size_t bar = rest.find("| ");
  if (bar == std::string_view::npos) refuse_entry(line, "it has no gloss");
  entry.line += ": ";
  entry.line += trim_lines(rest.substr(bar + 2));
  return entry;
}

std::vector<Document> wordnet_documents(const std::vector<std::string>& files) {
  std::map<std::string, std::vector<std::string>> lines;
  for (const std::string& file : files) {
    std::string_view rest = file;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      if (auto entry = wordnet_entry(rest.substr(0, end)))
        lines[entry->topic].push_back(std::move(entry->line));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  std::vector<Document> documents;
  for (const auto& [topic, entries] : lines) {
    for (size_t begin = 0; begin < entries.size(); begin += kEntriesPerDocument) {
      Document document = {.label = topic, .id = fmt::format("{}/{:04}", topic, begin / kEntriesPerDocument)};
      for (size_t i = begin; i < std::min(begin + kEntriesPerDocument, entries.size()); ++i) {
        if (i > begin) document.text += '\n';
        document.text += entries[i];
      }
      documents.push_back(std::move(document));
    }
  }
  return documents;
}

}  // namespace conclave::data
