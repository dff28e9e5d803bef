// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

namespace conclave::far {

// Memory of the device: one range of addresses, closed outside operations.
void* allocate(size_t bytes);
void release(void* memory);
size_t allocated();                  // bytes, rounded up
size_t size_of(const void* memory);  // as asked for

// Nested; the first opens and the last closes.
void open_memory();
void close_memory();

}  // namespace conclave::far
