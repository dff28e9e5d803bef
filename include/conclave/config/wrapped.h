// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/config/fields.h"

// Declarations around a declaration; chain further limits behind them as usual.
namespace conclave::config {

// A key over std::optional that may be `auto`: the member is empty until the program has decided its value,
// which it does before anything is frozen or started. null is not accepted and `auto` is written back.
//   or_auto(f("vocab_size", vocab_size, "Rows of the embedding.")).min(1);
Field& or_auto(Field& field);

// Keys that stand beside the options of whatever plug-in is chosen and belong to the struct around it.
//   beside_options(f.plugin("router", router, "routers", "..."), [this](Fields& f) { f("allow", allow,
//   "..."); });
Field& beside_options(Field& plugin, std::function<void(Fields&)> declare);

}  // namespace conclave::config
