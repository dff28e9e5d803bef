// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/data/corpus.h"

namespace conclave::data {

CorpusEntry domains4_entry();

}  // namespace conclave::data
