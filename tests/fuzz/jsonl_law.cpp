// SPDX-License-Identifier: Apache-2.0
#include <cctype>

#include "conclave/core/error.h"
#include "conclave/data/reader.h"
#include "laws.h"
#include "scratch_file.h"

namespace conclave::fuzz {

bool jsonl_law(const std::string& text) {
  static const ScratchFile scratch("m.jsonl");
  const auto& file = scratch.write(text);
  try {
    data::read_documents(file, {.label_field = "topic"}, [](data::Document document) {
      require(data::find_invalid_utf8(document.text) < 0, "the text is not UTF-8");
      require(data::find_invalid_utf8(document.label) < 0, "the label is not UTF-8");
    });
    return true;
  } catch (const Error& error) {
    const std::string message = error.what(), place = file.string() + ":";
    require(error.kind() == Error::Kind::kData, "not called bad data: " + message);
    const size_t at = message.find(place);
    require(at != std::string::npos && std::isdigit(static_cast<unsigned char>(message[at + place.size()])),
            "no line: " + message);
    return false;
  }
}

}  // namespace conclave::fuzz
