// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <optional>

#include "conclave/config/problems.h"

// Internal to the config room.
namespace conclave::config {

// The one YAML value in source->text from byte `begin` on, with positions in the whole text (`begin` lies on
// the first line). Empty when the text holds no value. What is refused (see parse_yaml) becomes problems.
std::optional<Node> parse_value(const std::shared_ptr<const Source>& source, size_t begin,
                                Problems& problems);

// What must hold before a YAML reader sees the text: size, UTF-8, no control characters, no tabs in
// indentation. False when a problem was added.
bool check_text(const std::shared_ptr<const Source>& source, Problems& problems);

}  // namespace conclave::config
