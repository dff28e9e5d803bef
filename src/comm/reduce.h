// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "conclave/comm/communicator.h"

namespace conclave::comm {

// out = parts[0] + parts[1] + ... (or their maximum), element by element in this order; each part holds
// out.count elements of out.type. `out` may be no part. For transports that move the parts themselves.
void reduce_in_order(const std::vector<const void*>& parts, Reduction reduction, Buffer out);

}  // namespace conclave::comm
