// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/launch.h"

#include <charconv>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::comm {

namespace {

struct Variables {
  const char* launcher;
  const char *rank, *world_size, *local_rank;
  const char* local_size;  // ranks on this node; null: the launcher does not tell
};

constexpr Variables kLaunchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", nullptr},
};

class Reader {
 public:
  explicit Reader(const Environment& environment) : environment_(environment) {}

  std::optional<std::string> text(const char* name) const {
    const char* value = name ? environment_(name) : nullptr;
    return value && *value ? std::optional<std::string>(value) : std::nullopt;
  }
  std::optional<int> number(const char* name, int lowest) const {
    const auto value = text(name);
    if (!value) return std::nullopt;
    int result = 0;
    const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), result);
    CONCLAVE_CHECK(error == std::errc() && end == value->data() + value->size() && result >= lowest,
                   fmt::format("the environment variable {} is '{}', which is no number of {} or more", name,
                               *value, lowest));
    return result;
  }

 private:
  const Environment& environment_;
};

std::optional<Launch> read(const Reader& reader, const Variables& v) {
  const auto rank = reader.number(v.rank, 0), size = reader.number(v.world_size, 1),
             local = reader.number(v.local_rank, 0);
  // A login shell inside an allocation has SLURM_NTASKS and no rank: nobody launched ranks there.
  if (!rank && (!local || std::strcmp(v.launcher, "Slurm") == 0)) {
    CONCLAVE_CHECK(
        !size || std::strcmp(v.launcher, "torchrun") != 0,
        fmt::format("{} is set and {} is not: set both, or start with torchrun", v.world_size, v.rank));
    return std::nullopt;
  }
  CONCLAVE_CHECK(
      rank && size,
      fmt::format("{} sets {} and {} together, here {} is missing; unset the other, or start the program "
                  "with the launcher",
                  v.launcher, v.rank, v.world_size, rank ? v.world_size : v.rank));
  CONCLAVE_CHECK(*rank < *size, fmt::format("{}={} is not below {}={}", v.rank, *rank, v.world_size, *size));
  Launch launch{
      .launcher = v.launcher, .rank = *rank, .world_size = *size, .local_rank = local.value_or(*rank)};
  launch.rendezvous.rank = *rank;
  launch.rendezvous.size = *size;
  const auto address = reader.text("MASTER_ADDR");
  launch.local_size = reader.number(v.local_size, 1);
  CONCLAVE_CHECK(
      address || *size == 1 || (launch.local_size && *launch.local_size == *size),
      fmt::format("{} started {} ranks, perhaps on several nodes; export MASTER_ADDR=HOST of rank 0 (and "
                  "MASTER_PORT, default {})",
                  v.launcher, *size, launch.rendezvous.master_port));
  if (address) launch.rendezvous.master_address = *address;
  return launch;
}

}  // namespace

std::optional<Launch> read_launch(const Environment& environment) {
  const Reader reader(environment);
  std::optional<Launch> found;
  for (const auto& variables : kLaunchers) {
    const auto launch = read(reader, variables);
    if (!launch || launch->world_size == 1) continue;
    CONCLAVE_CHECK(
        !found || (found->rank == launch->rank && found->world_size == launch->world_size),
        fmt::format("{} says rank {} of {}, {} says rank {} of {}: unset the variables of one of them",
                    found->launcher, found->rank, found->world_size, launch->launcher, launch->rank,
                    launch->world_size));
    if (!found) found = launch;
  }
  if (!found) return std::nullopt;
  if (const auto port = reader.number("MASTER_PORT", 1)) found->rendezvous.master_port = *port;
  if (const auto socket = reader.number(kListeningSocketVariable, 0); socket && found->rank == 0)
    found->rendezvous.listening_socket = *socket;
  // Spelt as torch's own rendezvous compares it.
  found->rendezvous.store_is_elsewhere = reader.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  found->rendezvous.prefix = fmt::format("conclave/{}/{}", reader.text("TORCHELASTIC_RUN_ID").value_or("run"),
                                         reader.number("TORCHELASTIC_RESTART_COUNT", 0).value_or(0));
  return found;
}

}  // namespace conclave::comm
