// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

namespace conclave::far {

// Memory of the device: one range of addresses, closed outside operations.
void* allocate(size_t bytes);
void release(void* memory);
size_t allocated();  // bytes

// Nested; the first opens and the last closes.
void open_memory();
void close_memory();

}  // namespace conclave::far
