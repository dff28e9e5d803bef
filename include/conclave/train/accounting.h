// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/model/accounting.h"
#include "conclave/moe/registry.h"
#include "conclave/train/run_config.h"

namespace conclave::train {

// What a run needs. Nothing is allocated for it but one router: only the plug-in knows its parameters.
struct RunAccounting {
  model::RankShare share = {};
  model::Accounting model = {};
  int64_t activation_bytes = 0;  // of a micro-batch of full rows; an estimate
  // The router fixes no number of experts per token; all of them count as active.
  bool any_number_of_experts = false;
};
RunAccounting account_run(const RunConfig& config, const moe::Registry& registry);

}  // namespace conclave::train
