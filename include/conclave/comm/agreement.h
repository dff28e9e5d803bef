// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "conclave/comm/communicator.h"

// Small exchanges by which the ranks of a run come to one mind.
namespace conclave::comm {

// The root's text on every rank; what the others give is not looked at.
std::string broadcast_text(Communicator& ranks, const std::string& text, int root = 0);

// Every rank's text on every rank, in the order of the ranks.
std::vector<std::string> all_gather_texts(Communicator& ranks, const std::string& text);

// Runs `part`, which calls no collective of `ranks`, on every rank. When it throws on some, none goes on:
// they rethrow what they caught, and the others throw Error (kCommunication) with the rank and the text of
// the first of them.
void do_together(Communicator& ranks, const std::function<void()>& part);

}  // namespace conclave::comm
