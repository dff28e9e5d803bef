// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "conclave/comm/communicator.h"

namespace conclave::comm {

// For tests and for finding a hang: before every operation but send and receive the ranks compare what they
// are about to do (which operation, how many elements of which type, how much for whom). When they disagree,
// all of them throw Error (kCommunication) with the number of the operation and what the first two that
// differ called; nothing has moved then. Costs several small exchanges for each operation. Groups that are
// split off are checked, too. What is compared lies on the host: `ranks` has to take host buffers.
std::unique_ptr<Communicator> check_calls(std::shared_ptr<Communicator> ranks);

}  // namespace conclave::comm
