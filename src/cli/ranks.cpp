// SPDX-License-Identifier: Apache-2.0
#include "ranks.h"

#include <algorithm>
#include <cstdlib>

#include <ATen/Parallel.h>
#include <c10/util/Logging.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "commands.h"
#include "conclave/comm/agreement.h"
#include "conclave/comm/gloo.h"
#include "conclave/config/load.h"
#include "conclave/config/parse.h"
#include "conclave/core/error.h"
#include "conclave/cuda/install.h"

namespace conclave::cli {

Log rank_log(const std::optional<comm::Launch>& launch) {
  if (!launch || launch->rank == 0) return stderr_log();
  return Log([rank = launch->rank](LogLevel level, const std::string& message) {
    const std::string text = fmt::format("rank {}: {}", rank, message);
    if (level == LogLevel::kWarning) stderr_log().warn(text);
    if (level == LogLevel::kError) stderr_log().error(text);
  });
}

comm::RankGroups connect_ranks(const std::optional<comm::Launch>& launch, const train::RunConfig& config,
                               const Log& log) {
  const bool gpus = config.device == train::Device::kCuda;
  const auto single = gpus ? comm::MakeSingle(cuda::single_with_gpu) : comm::make_single_communicator;
  if (!launch) return comm::single_rank(single);
  if (!std::getenv("OMP_NUM_THREADS") && launch->local_size)
    at::set_num_threads(std::max(1, at::get_num_threads() / *launch->local_size));
  // What torch logs of its attempts to connect, with addresses of its code, our errors say in a line.
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = static_cast<int>(c10::GLOG_FATAL);
  auto rendezvous = launch->rendezvous;
  rendezvous.timeout =
      std::chrono::milliseconds(static_cast<int64_t>(1000 * config.parallelism.timeout_seconds));
  std::shared_ptr<comm::Communicator> world = comm::connect_gloo(rendezvous);
  if (gpus) {
    world = cuda::with_gpus(world, {.nccl = config.parallelism.backend == train::Backend::kNccl,
                                    .timeout = rendezvous.timeout,
                                    .on_failure = [log](const std::string& cause, const std::string& record) {
                                      log.error(fmt::format("{}; the last operations:\n{}", cause, record));
                                    }});
  }
  return comm::make_groups(world, {.expert = static_cast<int>(config.parallelism.expert_parallel_size)},
                           single);
}

void refuse_different_configs(comm::Communicator& world, const config::Node& config) {
  const auto first = comm::broadcast_text(world, config::emit_yaml(config));
  comm::do_together(world, [&] {
    const auto changed = config::differences(config::parse_yaml("rank 0", first), config);
    if (changed.empty()) return;
    throw ConfigError(
        fmt::format("rank {} read another configuration than rank 0; start all with the same:\n  {}",
                    world.rank(), fmt::join(changed, "\n  ")));
  });
}

}  // namespace conclave::cli
