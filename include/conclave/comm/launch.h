// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "conclave/comm/gloo.h"

namespace conclave::comm {

// Descriptor of the listening socket that `conclave launch` hands to rank 0.
inline constexpr const char* kListeningSocketVariable = "CONCLAVE_LISTENING_SOCKET";

// What a launcher told this process.
struct Launch {
  std::string launcher = {};  // "torchrun", "Open MPI", "MPICH", "Slurm"
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  std::optional<int> local_size = {};  // ranks on this node; null: the launcher does not tell
  Rendezvous rendezvous = {};
};

// The value of an environment variable, null where it is not set; std::getenv outside tests.
using Environment = std::function<const char*(const char* name)>;

// Reads what torchrun, mpirun (Open MPI, MPICH and other PMI launchers) or srun set; nothing when the process
// was started alone, or as the only rank. Throws Error that names the variables when a launcher's set has
// holes, when two launchers contradict each other, when a number is none, or when several nodes are used
// without MASTER_ADDR.
std::optional<Launch> read_launch(const Environment& environment);

}  // namespace conclave::comm
