// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/ops/kernel_table.h"

namespace conclave::ops {

// The loops of kernels/*_cpu.cpp, on the threads of ATen.
KernelTable cpu_kernels();

}  // namespace conclave::ops
