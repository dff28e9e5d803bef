// SPDX-License-Identifier: Apache-2.0
#include <charconv>

#include <fmt/format.h>
#include <xxhash.h>

#include "conclave/core/error.h"
#include "conclave/train/checkpoint.h"
#include "conclave/train/json_reader.h"
#include "conclave/train/safetensors_index.h"

namespace conclave::train {

namespace {

// The text around the body; the checksum is taken over the body exactly as it stands.
constexpr std::string_view kManifestPrefix = "{\"checksum\":\"";
constexpr std::string_view kManifestMiddle = "\",\"manifest\":";
constexpr std::string_view kManifestSuffix = "}\n";

std::string hex_of(uint64_t value) {
  return fmt::format("{:016x}", value);
}

[[noreturn]] void fail_manifest(const std::string& file, const std::string& problem) {
  throw Error(fmt::format("'{}': {}", file, problem), Error::Kind::kData);
}

uint64_t parse_hex(const std::string& text, const std::string& place) {
  uint64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.size() != 16 || result.ec != std::errc() || result.ptr != text.data() + text.size() ||
      text != hex_of(value)) {
    throw Error(fmt::format("{}: expected 16 hexadecimal digits", place), Error::Kind::kData);
  }
  return value;
}

CheckpointFile read_manifest_file(const JsonReader& json) {
  CheckpointFile file{.name = json.at("name").text(),
                      .size = json.at("size").count(),
                      .checksum = parse_hex(json.at("xxh3_64").text(), json.at("xxh3_64").place()),
                      .tensors = {}};
  if (!is_plain_file_name(file.name)) json.at("name").fail("a plain file name");
  for (const auto& [name, checksum] : json.at("tensors").members()) {
    file.tensors.emplace(name, parse_hex(checksum.text(), checksum.place()));
  }
  return file;
}

}  // namespace

uint64_t xxh3_64(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

uint64_t CheckpointManifest::total_bytes() const {
  uint64_t total = 0;
  for (const auto& file : files) total += file.size;
  return total;
}

std::string render_manifest(const CheckpointManifest& manifest) {
  std::string body = fmt::format(
      "{{\n  \"format\": \"conclave-checkpoint\",\n  \"format_version\": {},\n"
      "  \"step\": {},\n  \"tokens\": {},\n  \"config_hash\": {},\n  \"attributes\": {{",
      kCheckpointFormatVersion, manifest.step, manifest.tokens, json_quote(manifest.config_hash));
  const char* separator = "";
  for (const auto& [key, value] : manifest.attributes) {
    body += fmt::format("{}\n    {}: {}", separator, json_quote(key), json_quote(value));
    separator = ",";
  }
  body += "},\n  \"files\": [";
  separator = "";
  for (const auto& file : manifest.files) {
    body += fmt::format("{}\n    {{\"name\": {}, \"size\": {}, \"xxh3_64\": \"{}\", \"tensors\": {{",
                        separator, json_quote(file.name), file.size, hex_of(file.checksum));
    const char* inner = "";
    for (const auto& [name, checksum] : file.tensors) {
      body += fmt::format("{}\n      {}: \"{}\"", inner, json_quote(name), hex_of(checksum));
      inner = ",";
    }
    body += "}}";
    separator = ",";
  }
  body += "]\n}";
  return fmt::format("{}{}{}{}{}", kManifestPrefix, hex_of(xxh3_64(bytes_of(body))), kManifestMiddle, body,
                     kManifestSuffix);
}

CheckpointManifest parse_manifest(const std::string& text, const std::string& file) {
  const size_t body_begin = kManifestPrefix.size() + 16 + kManifestMiddle.size();
  const std::string_view view(text);
  if (view.size() < body_begin + kManifestSuffix.size() || !view.starts_with(kManifestPrefix) ||
      view.substr(kManifestPrefix.size() + 16, kManifestMiddle.size()) != kManifestMiddle ||
      !view.ends_with(kManifestSuffix)) {
    fail_manifest(file, "not a checkpoint manifest, or truncated");
  }
  const auto body = view.substr(body_begin, view.size() - body_begin - kManifestSuffix.size());
  const std::string found = hex_of(xxh3_64(bytes_of(body)));
  const auto stated = view.substr(kManifestPrefix.size(), 16);
  if (stated != found) {
    fail_manifest(file, fmt::format("it was changed or damaged: checksum {}, stated {}", found, stated));
  }
  const std::string place = fmt::format("'{}'", file);
  const Json json = parse_json(body, place);
  const JsonReader root(json, place);
  if (root.at("format").text() != "conclave-checkpoint") root.at("format").fail("\"conclave-checkpoint\"");
  if (const auto version = root.at("format_version").count(); version != kCheckpointFormatVersion) {
    fail_manifest(file,
                  fmt::format("format version {}; this program reads version {}, use the one that wrote it",
                              version, kCheckpointFormatVersion));
  }
  CheckpointManifest manifest{.step = static_cast<int64_t>(root.at("step").count()),
                              .tokens = static_cast<int64_t>(root.at("tokens").count()),
                              .config_hash = root.at("config_hash").text(),
                              .attributes = {},
                              .files = {}};
  for (const auto& [key, value] : root.at("attributes").members())
    manifest.attributes.emplace(key, value.text());
  for (const auto& item : root.at("files").items()) manifest.files.push_back(read_manifest_file(item));
  return manifest;
}

}  // namespace conclave::train
