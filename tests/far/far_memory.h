// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

namespace conclave::far {

// Memory of the device: one range of addresses, closed outside operations.
void* allocate(size_t bytes);
void release(void* memory);
bool is_ours(const void* memory);

// Nested; the first opens and the last closes.
void open_memory();
void close_memory();

}  // namespace conclave::far
