// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <functional>

#include "conclave/comm/communicator.h"

namespace conclave::comm {

// Runs `body` on `size` ranks that are threads of this process, and returns when all have. Reductions go
// through the ranks in order, so that their bits do not depend on timing: the reference for every other
// transport. What is started runs when it is waited for. Every operation compares what the ranks called
// (operation, type, count); a difference is an error on all of them. When one rank throws, the others are
// freed from their waits, and the first error is thrown here. CPU only.
void run_ranks(int size, const std::function<void(Communicator&)>& body,
               std::chrono::milliseconds deadline = std::chrono::minutes(5));

}  // namespace conclave::comm
