// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>

#include "conclave/ops/kernel_table.h"

// The experts of a device: all rows of a bank in one product, whose bounds the device reads itself.
namespace conclave::ops {

// Whether the device multiplies groups of rows in this type in one launch.
using GroupedProducts = std::function<bool(c10::ScalarType product)>;

// Entries of the table. Products go through at::_grouped_mm where the device has it for the type and its
// rules are met: widths D and F are multiples of 8 values in bf16 (16 bytes), and there are fewer than 1024
// experts. Otherwise the experts are multiplied one after the other, for which the host waits once for their
// offsets.
std::function<ExpertOutputs(const ExpertPass&)> grouped_experts(GroupedProducts grouped);
std::function<ExpertGradients(const ExpertPass&, const at::Tensor& h_A2F, const at::Tensor& d_y_AD)>
grouped_experts_backward(GroupedProducts grouped);

}  // namespace conclave::ops
