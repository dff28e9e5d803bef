// SPDX-License-Identifier: Apache-2.0
// `conclave launch`: the ranks of one node, with the variables that torchrun sets.
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "conclave/comm/launch.h"
#include "conclave/config/problems.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "workers.h"

namespace conclave::cli {

namespace {

struct LaunchArguments {
  int ranks = 1;
  int restarts = 0;
  std::string log_folder;
  double grace = 10;  // seconds
  std::vector<std::string> command;
};

// How long the others may take to notice a failure by themselves, which tells more than being stopped.
constexpr double kNoticeSeconds = 3;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A bound and listening socket of this machine, kept open so that nobody else takes the port.
class ListeningSocket {
 public:
  ListeningSocket() : descriptor_(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    // Dual-stack, as the store's own listener.
    const int off = 0;
    setsockopt(descriptor_, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_any;
    if (descriptor_ < 0 || bind(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      bind_version_4();
    CONCLAVE_CHECK(listen(descriptor_, 1024) == 0,
                   fmt::format("cannot listen on a port: {}", std::strerror(errno)));
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    getsockname(descriptor_, reinterpret_cast<sockaddr*>(&bound), &size);
    port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                              : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  }
  ~ListeningSocket() { hand_over(); }
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;
  // The process that inherited it is now the only one that has it.
  void hand_over() {
    if (descriptor_ >= 0) close(descriptor_);
    descriptor_ = -1;
  }
  int descriptor() const { return descriptor_; }
  int port() const { return port_; }

 private:
  void bind_version_4() {
    if (descriptor_ >= 0) close(descriptor_);
    descriptor_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    CONCLAVE_CHECK(
        descriptor_ >= 0 && bind(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0,
        fmt::format("cannot bind a port: {}", std::strerror(errno)));
  }
  int descriptor_ = -1, port_ = 0;
};

std::vector<int> own_cores() {
  cpu_set_t set;
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(static_cast<size_t>(core), &set)) cores.push_back(core);
  }
  return cores;
}

// One try: all ranks from their start to their end.
class Attempt {
 public:
  Attempt(const LaunchArguments& arguments, int number, const std::string& run_id,
          const LauncherSignals& signals)
      : arguments_(arguments),
        signals_(signals),
        folder_(std::filesystem::path(arguments.log_folder) / fmt::format("attempt-{}", number)),
        workers_(signals) {
    std::filesystem::create_directories(folder_);
    const auto cores = own_cores();
    const auto ranks = static_cast<size_t>(arguments.ranks);
    const size_t share = cores.size() / ranks;  // 0: fewer cores than ranks, nothing is bound
    for (int rank = 0; rank < arguments.ranks; ++rank) {
      WorkerOptions options{.arguments = arguments.command, .log = rank == 0 ? "" : log_of(rank)};
      if (rank == 0) options.socket = socket_.descriptor();
      const size_t first = static_cast<size_t>(rank) * share;
      options.cores.assign(cores.begin() + static_cast<long>(first),
                           cores.begin() + static_cast<long>(first + share));
      auto& set = options.environment;
      const auto size = std::to_string(arguments.ranks), place = std::to_string(rank);
      set.insert({{"RANK", place},
                  {"LOCAL_RANK", place},
                  {"WORLD_SIZE", size},
                  {"LOCAL_WORLD_SIZE", size},
                  {"GROUP_RANK", "0"},
                  {"MASTER_ADDR", "127.0.0.1"},
                  {"MASTER_PORT", std::to_string(socket_.port())},
                  {"TORCHELASTIC_RUN_ID", run_id},
                  {"TORCHELASTIC_RESTART_COUNT", std::to_string(number)},
                  {"TORCHELASTIC_MAX_RESTARTS", std::to_string(arguments.restarts)},
                  {"TORCHELASTIC_USE_AGENT_STORE", "False"},
                  {"TORCHELASTIC_ERROR_FILE", error_file(rank)}});
      if (rank == 0) set[comm::kListeningSocketVariable] = std::to_string(socket_.descriptor());
      if (!std::getenv("GLOO_SOCKET_IFNAME")) set["GLOO_SOCKET_IFNAME"] = "lo";  // all are on this machine
      if (!std::getenv("OMP_NUM_THREADS"))
        set["OMP_NUM_THREADS"] = std::to_string(std::max<size_t>(share, 1));
      workers_.start(options);
    }
    socket_.hand_over();
  }

  // Waits for all of them. After the first failure the others get a while to notice, then SIGTERM, then
  // SIGKILL. A signal to the launcher goes to all.
  void wait() {
    double deadline = 0;
    int next_signal = 0;
    while (workers_.running()) {
      const int signal = signals_.wait(0.2);
      if (signal != 0 && signal != SIGCHLD) {
        forwarded_ = signal;
        workers_.send(signal);
      }
      for (const int rank : workers_.reap()) {
        if (workers_.ends()[static_cast<size_t>(rank)]->failed()) order_.push_back(rank);
      }
      if (order_.empty() || forwarded_) continue;
      if (next_signal == 0) {
        next_signal = SIGTERM;
        deadline = now() + kNoticeSeconds;
      } else if (now() > deadline) {
        stopped_by_us_ = true;
        workers_.send(next_signal);
        next_signal = SIGKILL;
        deadline = now() + arguments_.grace;
      }
    }
  }

  bool failed() const { return !order_.empty(); }
  std::optional<int> forwarded() const { return forwarded_; }

  // The rank that failed of itself: one that a signal killed before any was sent, else the first whose code
  // is not that of a follower, else the first.
  int cause() const {
    const auto first_of = [&](auto condition) {
      const auto it = std::find_if(order_.begin(), order_.end(), [&](int rank) {
        return condition(*workers_.ends()[static_cast<size_t>(rank)]);
      });
      return it == order_.end() ? -1 : *it;
    };
    int rank = stopped_by_us_ ? -1 : first_of([](const WorkerEnd& end) { return end.signal != 0; });
    if (rank < 0)
      rank =
          first_of([](const WorkerEnd& end) { return end.signal == 0 && end.exit_code != kCommunication; });
    return rank < 0 ? order_.front() : rank;
  }
  WorkerEnd end_of(int rank) const { return *workers_.ends()[static_cast<size_t>(rank)]; }

  std::string summary() const {
    const int rank = cause();
    std::string text = fmt::format("rank {} of {} {}", rank, arguments_.ranks, end_of(rank).text());
    // The first rank has said it here.
    if (const auto message = error_of(rank); rank != 0 && !message.empty()) text += ": " + message;
    for (const int other : order_) {
      if (other != rank) text += fmt::format("\n  then rank {} {}", other, end_of(other).text());
    }
    return text + fmt::format("\n  logs: {}", folder_.string());
  }

 private:
  std::string log_of(int rank) const { return folder_ / fmt::format("rank-{}.log", rank); }
  std::string error_file(int rank) const { return folder_ / fmt::format("rank-{}.error.json", rank); }
  // What the rank wrote before it ended; "" when it wrote nothing.
  std::string error_of(int rank) const {
    if (!std::filesystem::exists(error_file(rank))) return "";
    const auto json = nlohmann::json::parse(read_file(error_file(rank)), nullptr, /*allow_exceptions=*/false);
    return json.is_object() ? json.value("/message/message"_json_pointer, std::string()) : "";
  }

  const LaunchArguments& arguments_;
  const LauncherSignals& signals_;
  std::filesystem::path folder_;
  ListeningSocket socket_;
  Workers workers_;
  std::vector<int> order_;  // of the failures
  std::optional<int> forwarded_;
  bool stopped_by_us_ = false;
};

// The same command would fail the same way.
bool is_final(const WorkerEnd& end) {
  return end.signal == 0 &&
         (end.exit_code == kUsage || end.exit_code == kBadData || end.exit_code == kDiverged);
}

int launch(LaunchArguments arguments) {
  if (!arguments.command.empty() && arguments.command[0].rfind("-", 0) == 0) {
    throw ConfigError(config::unknown_name("option", arguments.command[0],
                                           {"--ranks", "--restarts", "--log-dir", "--grace"}));
  }
  if (arguments.command.empty() || arguments.command[0] != "train") {
    throw ConfigError(
        "conclave launch starts the ranks of 'train': conclave launch -n 2 train CONFIG [a.b=c ...]. Over "
        "several "
        "nodes use torchrun, srun or mpirun (docs/parallel.md)");
  }
  const auto run_id =
      fmt::format("launch-{}-{}", getpid(), std::chrono::system_clock::now().time_since_epoch().count());
  const bool own_folder = arguments.log_folder.empty();
  if (own_folder)
    arguments.log_folder = std::filesystem::temp_directory_path() / fmt::format("conclave-{}", run_id);
  const LauncherSignals signals;
  for (int number = 0;; ++number) {
    Attempt attempt(arguments, number, run_id, signals);
    attempt.wait();
    if (!attempt.failed()) {
      std::error_code ignored;
      if (own_folder) std::filesystem::remove_all(arguments.log_folder, ignored);
      return kDone;
    }
    if (const auto signal = attempt.forwarded()) return 128 + *signal;
    const auto end = attempt.end_of(attempt.cause());
    stderr_log().error(fmt::format("launch: {}", attempt.summary()));
    if (number == arguments.restarts || is_final(end)) return end.signal ? 128 + end.signal : end.exit_code;
    stderr_log().info(fmt::format("launch: starting all again ({} of {})", number + 1, arguments.restarts));
  }
}

}  // namespace

void add_launch(CLI::App& app, Action& action) {
  auto* sub = app.add_subcommand("launch", "Start several ranks of 'train' on this machine.");
  auto arguments = std::make_shared<LaunchArguments>();
  sub->add_option("-n,--ranks", arguments->ranks, "How many.")->required()->check(CLI::Range(1, 4096));
  sub->add_option("--restarts", arguments->restarts, "How often all are started again after a failure.")
      ->check(CLI::Range(0, 1000000));
  sub->add_option(
      "--log-dir", arguments->log_folder,
      "Folder of the output of all ranks but the first; default: one in the folder for temporary files.");
  sub->add_option("--grace", arguments->grace,
                  "Seconds between SIGTERM and SIGKILL for ranks that do not end after another failed.")
      ->check(CLI::NonNegativeNumber);
  sub->prefix_command();
  sub->footer(
      "Examples:\n  conclave launch -n 2 train configs/quickstart_ep2.yaml\n"
      "  conclave launch -n 2 --restarts 3 train configs/quickstart_ep2.yaml training.train_iters=50\n"
      "The first rank writes here. Cores are shared out unless OMP_NUM_THREADS is set. SIGINT, SIGTERM and "
      "SIGUSR1 go to\n"
      "all ranks. Exit code: that of the rank that failed first. Several nodes: torchrun, srun, mpirun.");
  sub->callback([&action, sub, arguments] {
    action = [sub, arguments] {
      arguments->command = sub->remaining();
      return launch(*arguments);
    };
  });
}

}  // namespace conclave::cli
