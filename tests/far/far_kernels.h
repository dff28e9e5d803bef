// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace conclave::far {

// Gives the device the CUDA kernels, run by the emulator: what a GPU runs, slowly.
void install_emulated_kernels();
// Gives it those of the CPU, with products in groups for every type and attention over ranges: quick, and
// without waits.
void install_host_kernels();

}  // namespace conclave::far
