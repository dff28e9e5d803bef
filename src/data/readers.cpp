// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "conclave/core/error.h"
#include "conclave/data/reader.h"
#include "line_source.h"

namespace conclave::data {

namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

[[noreturn]] void fail_at(const std::filesystem::path& path, const std::string& place,
                          const std::string& what, const std::string& remedy) {
  throw Error(fmt::format("{}{}: {}; {}", path.string(), place, what, remedy), Error::Kind::kData);
}

std::string at_line(int64_t line) {
  return fmt::format(":{}", line);
}

std::string invalid_byte(std::string_view text, int64_t offset) {
  return fmt::format("not UTF-8 (byte 0x{:02X})",
                     static_cast<unsigned char>(text[static_cast<size_t>(offset)]));
}

// ---- text
// ---------------------------------------------------------------------------------------------------------

void read_text(const std::filesystem::path& path, const SourceOptions& options, const DocumentSink& sink) {
  std::string text, chunk;
  for (const auto bytes = open_bytes(path); bytes->read(chunk);) text += chunk;
  if (const int64_t offset = find_invalid_utf8(text); offset >= 0) {
    fail_at(path, fmt::format(": byte {}", offset), invalid_byte(text, offset),
            "convert the file, e.g. iconv -f latin1 -t utf-8, or mend the byte");
  }
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  if (!options.document_separator) return sink({.text = std::move(text)});
  const std::string& separator = *options.document_separator;
  CONCLAVE_CHECK(!separator.empty(), "document_separator is empty");
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    sink({.text = text.substr(begin, end - begin)});
    begin = end + separator.size();
  }
}

// ---- jsonl
// --------------------------------------------------------------------------------------------------------

std::string join_keys(const nlohmann::json& object) {
  std::string keys;
  for (const auto& item : object.items()) keys += (keys.empty() ? "" : ", ") + item.key();
  return keys.empty() ? "none" : keys;
}

std::string string_field(const nlohmann::json& object, const std::string& key, const char* option,
                         const std::filesystem::path& path, int64_t line) {
  const auto found = object.find(key);
  if (found == object.end()) {
    fail_at(path, at_line(line), fmt::format("no field '{}' (there are: {})", key, join_keys(object)),
            fmt::format("set {} to the right one", option));
  }
  if (!found->is_string()) {
    fail_at(path, at_line(line),
            fmt::format("the field '{}' is of type {}, not a string", key, found->type_name()),
            fmt::format("set {} to a field that holds text, or mend the line", option));
  }
  return found->get<std::string>();
}

nlohmann::json parse_line(std::string_view line, const std::filesystem::path& path, int64_t number) {
  if (const int64_t offset = find_invalid_utf8(line); offset >= 0) {
    fail_at(path, at_line(number),
            fmt::format("{} at byte {} of the line", invalid_byte(line, offset), offset),
            "convert the file to UTF-8");
  }
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(line);
  } catch (const nlohmann::json::parse_error& error) {
    fail_at(path, at_line(number),
            fmt::format("not JSON (at byte {} of the line)", error.byte == 0 ? 0 : error.byte - 1),
            "each line of a jsonl file is one complete JSON object");
  } catch (const nlohmann::json::out_of_range&) {
    fail_at(path, at_line(number), "a number is too large for a double",
            "write it as a string, or leave its field out");
  }
  if (!object.is_object()) {
    fail_at(path, at_line(number), fmt::format("a JSON {}, not an object", object.type_name()),
            "each line of a jsonl file is one complete JSON object");
  }
  return object;
}

void read_jsonl(const std::filesystem::path& path, const SourceOptions& options, const DocumentSink& sink) {
  LineSource lines(open_bytes(path));
  std::string line;
  while (lines.next(line)) {
    std::string_view content = line;
    if (lines.number() == 1 && content.starts_with(kByteOrderMark))
      content.remove_prefix(kByteOrderMark.size());
    if (content.find_first_not_of(" \t") == std::string_view::npos) continue;
    const auto object = parse_line(content, path, lines.number());
    Document document;
    document.text = string_field(object, options.text_field, "text_field", path, lines.number());
    if (options.label_field) {
      document.label = string_field(object, *options.label_field, "label_field", path, lines.number());
    }
    if (const auto id = object.find("id"); id != object.end() && id->is_string()) document.id = *id;
    sink(std::move(document));
  }
}

}  // namespace

std::vector<ReaderEntry> builtin_readers() {
  return {{.name = "text",
           .doc = "Plain UTF-8 text; a file is one document, or several with document_separator.",
           .extensions = {".txt", ".text", ".md", ".txt.gz", ".txt.zst"},
           .read = read_text},
          {.name = "jsonl",
           .doc = "One JSON object a line; text_field is the document, label_field its domain.",
           .extensions = {".jsonl", ".jsonl.gz", ".jsonl.zst"},
           .read = read_jsonl}};
}

const ReaderEntry& reader_for(const std::filesystem::path& path, const std::vector<ReaderEntry>& table) {
  const std::string name = path.filename().string();
  const ReaderEntry* best = nullptr;
  size_t length = 0;
  std::string known;
  for (const auto& entry : table) {
    for (const auto& extension : entry.extensions) {
      known += (known.empty() ? "" : " ") + extension;
      if (name.ends_with(extension) && extension.size() > length) {
        best = &entry;
        length = extension.size();
      }
    }
  }
  if (!best) {
    throw Error(fmt::format("'{}' has no known extension (known: {}); rename the file", path.string(), known),
                Error::Kind::kData);
  }
  return *best;
}

void read_documents(const std::filesystem::path& path, const SourceOptions& options,
                    const DocumentSink& sink) {
  const auto table = builtin_readers();
  reader_for(path, table).read(path, options, sink);
}

}  // namespace conclave::data
