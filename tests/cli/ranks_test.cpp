// SPDX-License-Identifier: Apache-2.0
// Several processes that a launcher's variables make one run.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <thread>

#include "comm/ranks.h"
#include "conclave/train/metrics.h"
#include "tiny_run.h"

namespace conclave::cli_tests {
namespace {

class RanksOfProcesses : public TinyRun {
 protected:
  // As torchrun or mpirun (Open MPI) start them on one node.
  std::map<std::string, std::string> variables(int rank, int size, bool open_mpi, int port) const {
    auto set = here().environment;
    set["GLOO_SOCKET_IFNAME"] = "lo";
    set["MASTER_PORT"] = std::to_string(port);
    const std::string r = std::to_string(rank), n = std::to_string(size);
    if (open_mpi) {
      set.insert({{"OMPI_COMM_WORLD_RANK", r},
                  {"OMPI_COMM_WORLD_SIZE", n},
                  {"OMPI_COMM_WORLD_LOCAL_RANK", r},
                  {"OMPI_COMM_WORLD_LOCAL_SIZE", n}});
    } else {
      set["MASTER_ADDR"] = "127.0.0.1";
      set.insert({{"RANK", r}, {"WORLD_SIZE", n}, {"LOCAL_RANK", r}, {"LOCAL_WORLD_SIZE", n}});
    }
    return set;
  }

  using Processes = std::vector<std::unique_ptr<Program>>;
  Processes start(int size, const std::string& run, const std::vector<std::string>& more,
                  bool open_mpi = false) const {
    const int port = comm::free_port();
    Processes processes;
    for (int rank = 0; rank < size; ++rank) {
      processes.push_back(std::make_unique<Program>(
          train_arguments(run, more),
          ProgramOptions{.folder = folder_.path(), .environment = variables(rank, size, open_mpi, port)}));
    }
    return processes;
  }
  static std::vector<Ended> wait(const Processes& processes) {
    std::vector<Ended> ended;
    for (const auto& process : processes) ended.push_back(process->wait());
    return ended;
  }
  std::vector<Ended> train_on(int size, const std::string& run, const std::vector<std::string>& more,
                              bool open_mpi = false) const {
    auto ended = wait(start(size, run, more, open_mpi));
    for (const auto& e : ended) EXPECT_EQ(e.exit_code, kDone) << e.err;
    return ended;
  }

  std::vector<std::string> launch_arguments(const std::string& run, const std::vector<std::string>& more,
                                            std::vector<std::string> options = {}) const {
    options.insert(options.begin(), {"launch", "-n", "2"});
    const auto train = train_arguments(run, more);
    options.insert(options.end(), train.begin(), train.end());
    return options;
  }
  Ended launch(const std::string& run, const std::vector<std::string>& more,
               std::vector<std::string> options = {}) const {
    return conclave(launch_arguments(run, more, std::move(options)));
  }

  void expect_near(const std::string& run, const std::string& other) const {
    const auto read = [&](const std::string& name) {
      return train::read_metrics(path(name + "/metrics.jsonl"));
    };
    const auto a = read(run), b = read(other);
    for (const auto& [name, series] : a) {
      if (name.rfind("perf/", 0) == 0) continue;
      ASSERT_TRUE(b.count(name)) << name;
      const auto& values = b.at(name).values;
      ASSERT_EQ(series.values.size(), values.size()) << name;
      for (size_t i = 0; i < values.size(); ++i)
        EXPECT_NEAR(values[i], series.values[i], 1e-9 * std::max(1e-3, std::abs(series.values[i])))
            << name << i;
    }
  }

  const std::vector<std::string> fp64_ = {"training.precision=fp64", "model.moe.num_experts=6"};
  std::vector<std::string> spread(std::vector<std::string> more, int ranks) const {
    more.push_back(fmt::format("parallelism.expert_parallel_size={}", ranks));
    return more;
  }
};

TEST_F(RanksOfProcesses, train_as_one_whatever_started_them) {
  EXPECT_EQ(train("one", fp64_).exit_code, kDone);
  const auto ended = train_on(2, "torchrun", spread(fp64_, 2));
  expect_words(ended[0].out, {"torchrun: step 40, held-out"});
  EXPECT_EQ(ended[1].out + ended[1].err, "") << "the first rank speaks";
  train_on(2, "mpirun", spread(fp64_, 2), /*open_mpi=*/true);
  expect_near("one", "torchrun");
  EXPECT_EQ(launch("launch", spread(fp64_, 2)).exit_code, kDone);
  EXPECT_EQ(metrics("torchrun"), metrics("launch")) << "bit for bit";
  EXPECT_EQ(metrics("torchrun"), metrics("mpirun")) << "bit for bit";
  const auto again = train_on(2, "torchrun", spread(fp64_, 2));
  expect_words(again[0].out, {"torchrun is finished"});
}

TEST_F(RanksOfProcesses, when_one_is_killed_the_others_end_with_another_code_and_the_same_command_goes_on) {
  const auto overrides = spread({"model.moe.num_experts=6"}, 2);
  train_on(2, "whole", overrides);
  {
    const auto processes = start(2, "parts", overrides);
    EXPECT_TRUE(processes[0]->wait_until([&] { return newest_step("parts") >= 16; }));
    processes[1]->send(SIGKILL);
    const auto ended = wait(processes);
    EXPECT_EQ(ended[1].signal, SIGKILL);
    EXPECT_EQ(ended[0].exit_code, 5) << ended[0].err;
    expect_words(ended[0].err, {"rank 0 of 2", "failed"});
    expect_words(text("parts/STATUS.json"), {"failed"});
  }
  train_on(2, "parts", overrides);
  EXPECT_EQ(metrics("whole"), metrics("parts"));
  for (const char* file : {"model-00001-of-00002", "model-00002-of-00002", "optimizer-00002-of-00002"}) {
    const auto name = fmt::format("/checkpoints/step-00000040/{}.safetensors", file);
    EXPECT_EQ(text("whole" + name), text("parts" + name)) << file;
  }
}

// The processes that `parent` started and that still run.
std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (const auto& item : std::filesystem::directory_iterator("/proc")) {
    if (std::atoi(item.path().filename().c_str()) == 0) continue;  // no process
    std::ifstream stat(item.path() / "stat");
    std::string text((std::istreambuf_iterator<char>(stat)), {});
    const size_t behind_name = text.rfind(')');
    char state = 0;
    long id = 0;
    if (behind_name == std::string::npos ||
        std::sscanf(text.c_str() + behind_name, ") %c %ld", &state, &id) != 2)
      continue;
    if (id == parent && state != 'Z') children.push_back(std::atoi(item.path().filename().c_str()));
  }
  return children;
}

TEST_F(RanksOfProcesses, that_are_killed_at_random_are_started_again_and_lose_nothing) {
  const char* wanted = std::getenv("CONCLAVE_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 3;
  const auto overrides =
      spread({"model.moe.num_experts=6", fmt::format("training.train_iters={}", 40 * kills),
              "checkpoint.interval=11", "evaluation.interval=50"},
             2);
  EXPECT_EQ(launch("whole", overrides).exit_code, kDone);
  Program launcher(launch_arguments("killed", overrides, {"--restarts", "100", "--log-dir", path("logs")}),
                   here());
  std::mt19937 random(7);
  int done = 0;
  while (done < kills && launcher.running()) {
    // Anywhere between the start of the processes and the end of the run.
    std::this_thread::sleep_for(std::chrono::milliseconds(300 + random() % 1700));
    const auto ranks = children_of(launcher.id());
    if (ranks.empty()) continue;  // between two attempts
    kill(ranks[random() % ranks.size()], SIGKILL);
    EXPECT_TRUE(launcher.wait_until([&] {
      return std::filesystem::exists(path(fmt::format("logs/attempt-{}", done + 1)));
    })) << launcher.err();
    ++done;
  }
  const auto ended = launcher.wait();
  EXPECT_EQ(ended.exit_code, kDone) << ended.err;
  EXPECT_EQ(done, kills);
  expect_words(ended.err, {"was killed by signal 9", "starting all again (1 of 100)"});
  EXPECT_EQ(metrics("whole"), metrics("killed"));
}

TEST_F(RanksOfProcesses, of_a_launcher_stop_with_it_and_tell_who_failed_first) {
  const auto overrides = spread({"model.moe.num_experts=6"}, 2);
  {
    Program launcher(launch_arguments("run", overrides), here());
    EXPECT_TRUE(launcher.wait_until([&] { return newest_step("run") >= 10; }));
    launcher.send(SIGTERM);
    EXPECT_EQ(launcher.wait().exit_code, 128 + SIGTERM);
    expect_words(text("run/STATUS.json"), {"stopped", "SIGTERM"});
  }
  EXPECT_EQ(launch("run", overrides).exit_code, kDone);
  const auto diverged =
      launch("wild", spread({"model.moe.num_experts=6", "optimizer.lr=1e30"}, 2), {"--restarts", "3"});
  EXPECT_EQ(diverged.exit_code, 6) << diverged.err;
  expect_words(diverged.err, {"launch: rank ", " of 2 ended with exit code 6"});
  EXPECT_EQ(diverged.err.find("starting all again"), std::string::npos) << "it would diverge again";
  expect_words(conclave({"launch", "-n", "2", "generate", "run"}).err, {"starts the ranks of 'train'"});
  expect_words(conclave({"launch", "-n", "2", "--restart", "3", "train", "tiny.yaml"}).err, {"--restarts"});
}

TEST_F(RanksOfProcesses, a_checkpoint_of_two_is_read_by_one) {
  train_on(2, "run", spread({"model.moe.num_experts=6"}, 2));
  EXPECT_EQ(conclave({"checkpoint", "verify", "run/checkpoints/step-00000040"}).exit_code, kDone);
  const auto summary = conclave({"checkpoint", "inspect", "run/checkpoints/step-00000040"});
  expect_words(summary.out,
               {"step 40,", "model: ", "values F32, in 2 files", "optimizer: ", "in 2 files", "state: {"});
  EXPECT_EQ(
      train("single", {"model.moe.num_experts=6", "training.train_iters=1", "training.micro_batch_size=6",
                       "checkpoint.init_from=run/checkpoints/step-00000040", "optimizer.lr=1e-12"})
          .exit_code,
      kDone);
  const auto same =
      conclave({"checkpoint", "diff", "run/checkpoints/step-00000040", "run/checkpoints/latest"});
  EXPECT_EQ(same.exit_code, kDone) << same.out << same.err;
  EXPECT_EQ(same.out, "the same\n");
  const auto other =
      conclave({"checkpoint", "diff", "run/checkpoints/step-00000040", "single/checkpoints/step-00000001"});
  EXPECT_EQ(other.exit_code, kFailed);
  expect_words(other.out,
               {"layers_0.moe.experts.5.up_proj.weight.exp_avg: ", "values differ, at most by", "state: "});
  EXPECT_EQ(conclave({"checkpoint", "diff", "run/checkpoints/step-00000040", "absent"}).exit_code, kBadData);
  const auto scored = conclave({"eval", "run"});
  EXPECT_EQ(scored.exit_code, kDone) << scored.err;
  const auto more = train("one", {"model.moe.num_experts=6", "training.train_iters=2",
                                  "checkpoint.init_from=run/checkpoints/step-00000040"});
  EXPECT_EQ(more.exit_code, kDone) << more.err;
}

TEST_F(RanksOfProcesses, that_cannot_be_one_run_are_told_so) {
  const auto alone = train("alone", spread({"model.moe.num_experts=6"}, 2));
  EXPECT_EQ(alone.exit_code, kUsage);
  expect_words(alone.err, {"2 ranks are to share the experts, started: 1", "conclave launch -n 2 train"});

  const int port = comm::free_port();
  Processes processes;
  for (int rank = 0; rank < 2; ++rank) {
    processes.push_back(std::make_unique<Program>(
        train_arguments("different",
                        {"model.moe.num_experts=6", fmt::format("optimizer.lr=0.00{}", rank + 1)}),
        ProgramOptions{.folder = folder_.path(), .environment = variables(rank, 2, false, port)}));
  }
  const auto ended = wait(processes);
  EXPECT_EQ(ended[0].exit_code, 5) << ended[0].err;
  EXPECT_EQ(ended[1].exit_code, kUsage) << ended[1].err;
  expect_words(ended[0].err,
               {"rank 1 of 2 failed: rank 1 read another configuration than rank 0", "optimizer.lr"});

  auto options = here();
  options.environment["WORLD_SIZE"] = "2";
  const auto half = run_program(train_arguments("half"), options);
  EXPECT_NE(half.exit_code, kDone);
  expect_words(half.err, {"WORLD_SIZE is set and RANK is not"});
}

}  // namespace
}  // namespace conclave::cli_tests
