// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "conclave/core/log.h"
#include "conclave/nn/module.h"

namespace conclave::train {

// Whether the whole of `text` matches: `*` stands for any text, `?` for one character.
bool matches_glob(const std::string& glob, const std::string& text);

// Takes the parameters whose logical names match one of the globs out of training: they no longer require a
// gradient, so nothing below allocates or updates anything for them. Throws ConfigError for a glob that
// matches nothing (it lists what there is), for one that matches only a part of a stored tensor (it names the
// rest), and when nothing is left to train.
void freeze_parameters(const std::vector<nn::TaggedParameter>& parameters,
                       const std::vector<std::string>& globs, const Log& log);

}  // namespace conclave::train
