// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <memory>
#include <vector>

#include "conclave/comm/communicator.h"

namespace conclave::comm {

// What one rank sent over one class of links. A message is what one rank has for another in one operation;
// an empty one is none.
struct LinkVolume {
  int64_t messages = 0;
  int64_t payload_bytes = 0;
  int64_t metadata_bytes = 0;  // counts, combine weights: what describes the rows
};

// What one rank sent to others by all_to_all, reduce_scatter (an all_to_all of its parts), all_gather and
// send. A broadcast or an all-reduce counts as a call alone: what it sends is the transport's choice.
struct Traffic {
  int64_t calls = 0;  // operations of any kind
  LinkVolume same_node = {}, other_nodes = {};
};

// An operation that sends a message over such a link is not done earlier than this after its start.
struct Latency {
  std::chrono::microseconds same_node{0}, other_nodes{0};
};

// A communicator that adds what this rank sends to `traffic` and lets `ranks` do it. node_of_rank[r]: node of
// rank r of `ranks`. Groups that are split off count into the same traffic; `ranks` has to take host buffers
// for a split.
std::unique_ptr<Communicator> count_traffic(std::shared_ptr<Communicator> ranks,
                                            std::vector<int> node_of_rank, std::shared_ptr<Traffic> traffic,
                                            const Latency& latency = {});

}  // namespace conclave::comm
