// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/ops/kernel_table.h"

// A bank of experts over rows sorted by expert, forward and backward: entries of the table.
namespace conclave::ops {

// One expert after the other, several at once on several threads. For the CPU: reads the offsets.
ExpertOutputs experts_one_by_one(const ExpertPass& pass);
ExpertGradients experts_one_by_one_backward(const ExpertPass& pass, const at::Tensor& h_A2F,
                                            const at::Tensor& d_y_AD);

}  // namespace conclave::ops
