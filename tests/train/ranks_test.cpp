// SPDX-License-Identifier: Apache-2.0
// A run on several ranks is the run of one.
#include <array>
#include <csignal>
#include <span>

#include <c10/core/GradMode.h>

#include "train/ranks_run.h"

namespace conclave::train {
namespace {

class Ranks : public RanksRun {
 protected:
  void expect_as_one_rank(const std::vector<Layout>& layouts, const std::vector<std::string>& overrides) {
    train_on({}, "one", overrides);
    for (const auto& layout : layouts) {
      SCOPED_TRACE(fmt::format("{} ranks, experts over {}", layout.ranks, layout.expert_parallel));
      const auto run = fmt::format("n{}e{}", layout.ranks, layout.expert_parallel);
      train_on(layout, run, overrides);
      expect_same_training("one", run, 5);
    }
  }
};

TEST_F(Ranks, train_as_one_rank_in_every_layout) {
  expect_as_one_rank({{2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}, {8, 2}, {8, 8}}, {});
}

TEST_F(Ranks, that_share_out_the_optimizer_states_train_as_one) {
  expect_as_one_rank({{2, 1}, {4, 2}, {4, 4}}, {"parallelism.zero_stage=1", "training.clip_grad=0.05"});
}

TEST_F(Ranks, that_gather_all_tokens_train_as_one) {
  const std::vector<std::string> gathered = {"model.moe.dispatcher.type=all_gather"};
  train_on({}, "one");
  for (const Layout& layout : {Layout{2, 2}, Layout{4, 2}}) {
    const auto run = fmt::format("n{}e{}", layout.ranks, layout.expert_parallel);
    train_on(layout, run, gathered);
    expect_same_training("one", run, 5);
  }
}

// A budget that is too small at first: the steps are repeated, and nothing else differs.
TEST_F(Ranks, that_repeat_a_step_for_want_of_budget_train_as_without_a_limit) {
  const std::vector<std::string> losses = {
      "model.moe.aux_losses=[{type: load_balancing, weight: 0.05, scope: global_batch}]",
      "parallelism.zero_stage=1", "training.precision=fp32"};
  auto limited = losses;
  limited.insert(limited.end(),
                 {"model.moe.dispatcher.rank_budget=20", "model.moe.dispatcher.on_overflow=rerun"});
  train_on({4, 2}, "free", losses);
  train_on({4, 2}, "limited", limited);
  expect_same_training("free", "limited", 5, 0.0);
  EXPECT_GT(metrics("limited").at("train/reruns").back(), 0);
  EXPECT_GT(metrics("free").at("moe/most_rank_rows").back(), 20);

  limited.back() = "model.moe.dispatcher.on_overflow=error";
  EXPECT_TRUE(has(failure([&] { train_on({4, 2}, "error", limited); }), "rank_budget allows 20"));
  limited.back() = "model.moe.dispatcher.on_overflow=drop";
  train_on({4, 2}, "drop", limited);
  auto recomputed = limited;
  recomputed.push_back("training.recompute=full");
  train_on({4, 2}, "drop_again", recomputed);
  expect_same_training("drop", "drop_again", 5, 0.0);  // the second pass drops the same
  EXPECT_EQ(metrics("drop").at("moe/most_rank_rows").back(), 20);
  EXPECT_GT(metrics("drop").at("moe/drop_rate").back(), 0);
  // The error tells what to raise, and the run goes on with it.
  limited = losses;
  limited.push_back("model.moe.dispatcher.rank_budget=5000");
  train_on({4, 2}, "error", limited);
  expect_same_training("free", "error", 5, 0.0);
}

TEST_F(Ranks, counts_of_the_global_batch_are_those_of_all_ranks) {
  expect_as_one_rank({{2, 1}, {4, 2}},
                     {"model.moe.aux_losses=[{type: load_balancing, weight: 0.05, scope: global_batch}, "
                      "{type: load_balancing, weight: 0.05, scope: micro_batch}]"});
}

TEST_F(Ranks, recompute_moves_the_tokens_again) {
  expect_as_one_rank({{2, 2}, {4, 2}}, {"training.recompute=full"});
}

TEST_F(Ranks, drop_tokens_over_capacity_alike) {
  expect_as_one_rank({{2, 2}, {4, 2}}, {"model.moe.router={type: topk, top_k: 2, capacity: {factor: 0.75, "
                                        "order: prob}, allow_noncausal: true}"});
}

TEST_F(Ranks, slots_and_hidden_tokens_are_shared_out) {
  expect_as_one_rank({{2, 2}, {4, 2}},
                     {"model.objective=masked_lm", "model.moe.balance_update={type: none}",
                      "model.moe.router={type: soft, allow_noncausal: true}", "model.moe.aux_losses=[]"});
}

TEST_F(Ranks, an_interrupted_run_goes_on_in_any_layout) {
  train_on({}, "one");
  for (const Layout& next : {Layout{1, 1}, Layout{2, 2}, Layout{8, 4}, Layout{4, 1}}) {
    for (const auto& [zero, then] : {std::pair(0, 0), std::pair(1, 0), std::pair(1, 1), std::pair(0, 1)}) {
      SCOPED_TRACE(fmt::format("{} ranks, experts over {}, ZeRO stage {} and then {}", next.ranks,
                               next.expert_parallel, zero, then));
      const auto run = fmt::format("n{}e{}z{}{}", next.ranks, next.expert_parallel, zero, then);
      const auto stage = [](int value) { return fmt::format("parallelism.zero_stage={}", value); };
      train_on({4, 2}, read_for({4, 2}, run, {"training.exit_after=2", stage(zero)}));
      EXPECT_TRUE(std::filesystem::exists(checkpoint(run, 2) / "model-00002-of-00002.safetensors"));
      EXPECT_EQ(std::filesystem::exists(checkpoint(run, 2) / "optimizer-00004-of-00004.safetensors"),
                zero == 1);
      train_on(next, run, {stage(then)});
      expect_same_training("one", run, 5);
    }
  }
}

TEST_F(Ranks, repeat_themselves_bit_for_bit) {
  for (const char* precision : {"fp32", "bf16"}) {
    const std::string name = precision;
    for (const char* run : {"a", "b"}) train_on({4, 2}, name + run, {"training.precision=" + name});
    EXPECT_EQ(metrics(name + "a"), metrics(name + "b"));
    for (const char* file : {"model-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"})
      EXPECT_EQ(bytes(checkpoint(name + "a", 5) / file), bytes(checkpoint(name + "b", 5) / file)) << file;
  }
}

TEST_F(Ranks, a_signal_to_one_stops_all_after_the_same_step) {
  const auto config = read_for({4, 2}, "run");
  std::array<int64_t, 4> steps = {};
  const auto result = train_on({4, 2}, config, [&](int rank) {
    TrainerHooks hooks;
    hooks.on_step = [&steps, rank](const StepReport& report) {
      steps[static_cast<size_t>(rank)] = report.step;
    };
    hooks.stop_requested = [&steps, rank] {
      return rank == 2 && steps[2] == 3 ? std::optional(SIGTERM) : std::nullopt;
    };
    return hooks;
  });
  EXPECT_EQ(result.stopped_by, SIGTERM);
  EXPECT_EQ(steps, (std::array<int64_t, 4>{3, 3, 3, 3}));
  EXPECT_EQ(store("run").latest(), 3);
}

TEST_F(Ranks, the_clock_that_is_furthest_ends_a_run_bounded_by_time) {
  const auto config = read_for({2, 2}, "run", {"training.train_iters=1000", "training.max_minutes=1"});
  std::array<int64_t, 2> steps = {};
  train_on({2, 2}, config, [&](int rank) {
    TrainerHooks hooks;
    hooks.on_step = [&steps, rank](const StepReport& report) {
      steps[static_cast<size_t>(rank)] = report.step;
    };
    hooks.clock = [&steps, rank] {
      return static_cast<double>(steps[static_cast<size_t>(rank)] * (rank ? 10 : 7));
    };
    return hooks;
  });
  EXPECT_EQ(steps, (std::array<int64_t, 2>{6, 6}));
}

TEST_F(Ranks, a_checkpoint_that_cannot_be_written_costs_all_the_same) {
  const auto config = read_for({4, 2}, "run", {"checkpoint.interval=2"});
  std::array<std::string, 4> logs;
  train_on({4, 2}, config, [&](int rank) {
    TrainerHooks hooks;
    hooks.log =
        Log([&logs, rank](LogLevel, const std::string& text) { logs[static_cast<size_t>(rank)] += text; });
    hooks.on_step = [this, rank](const StepReport& report) {
      if (rank == 0 && report.step == 2) std::ofstream(folder_ / "run/checkpoints") << "no folder";
      if (rank == 0 && report.step == 3) std::filesystem::remove(folder_ / "run/checkpoints");
    };
    return hooks;
  });
  for (const auto& log : logs) {
    EXPECT_TRUE(has(log, "step 2: the checkpoint was not saved, training goes on")) << log;
  }
  EXPECT_EQ(store("run").list(), (std::vector<int64_t>{4, 5}));
}

TEST_F(Ranks, save_in_the_background_what_they_would_have_saved_at_once) {
  const std::vector<std::string> often = {"checkpoint.interval=2", "checkpoint.keep_latest_k=null",
                                          "parallelism.zero_stage=1"};
  auto background = often;
  background.push_back("checkpoint.in_background=true");
  train_on({4, 2}, "at_once", often);
  train_on({4, 2}, "behind", background);
  EXPECT_EQ(store("behind").list(), (std::vector<int64_t>{2, 4, 5}));
  for (const int64_t step : {2, 4, 5}) {
    for (const auto& entry : std::filesystem::directory_iterator(checkpoint("at_once", step)))
      EXPECT_EQ(bytes(checkpoint("behind", step) / entry.path().filename()), bytes(entry.path()))
          << entry.path();
  }
  // A save that fails is told when its ranks are done, and the policy holds.
  const auto spoil = [&](const std::string& run, const std::string& policy) {
    background.back() = "checkpoint.on_save_error=" + policy;
    auto overrides = background;
    overrides.push_back("checkpoint.in_background=true");
    std::string log;
    const auto text = failure([&] {
      train_on({4, 2}, read_for({4, 2}, run, overrides), [&](int rank) {
        TrainerHooks hooks;
        if (rank == 0) {
          hooks.log = Log([&, this](LogLevel, const std::string& line) {
            log += line;
            if (has(line, "was not saved")) std::filesystem::remove(folder_ / run / "checkpoints");
          });
        }
        hooks.on_step = [this, rank, run](const StepReport& report) {
          if (rank == 0 && report.step == 2) std::ofstream(folder_ / run / "checkpoints") << "no folder";
        };
        return hooks;
      });
    });
    return text + log;
  };
  EXPECT_TRUE(has(spoil("goes_on", "continue"), "step 2: the checkpoint was not saved, training goes on"));
  EXPECT_EQ(store("goes_on").list(), (std::vector<int64_t>{4, 5}));
  EXPECT_TRUE(has(spoil("stops", "stop"), "cannot save the checkpoint of step 2"));
}

TEST_F(Ranks, what_one_cannot_write_of_a_checkpoint_none_keeps) {
  comm::run_ranks(3, [&](comm::Communicator& world) {
    const bool broken = world.rank() == 1;
    CheckpointStore store(folder_ / "store", {}, {}, [&](const std::filesystem::path& path) {
      if (broken && path.filename() == "part-1.safetensors") throw Error("the disk of rank 1 is full");
      return create_disk_file(path);
    });
    const int value = world.rank();
    const CheckpointContents contents{
        .step = 7,
        .files = {{.name = fmt::format("part-{}.safetensors", world.rank()),
                   .tensors = {{.name = fmt::format("t{}", world.rank()),
                                .dtype = "I32",
                                .shape = {},
                                .bytes = std::as_bytes(std::span(&value, 1))}}}}};
    const auto message = failure([&] { store.save(contents, world); });
    EXPECT_TRUE(has(message, "the disk of rank 1 is full")) << message;
    EXPECT_EQ(has(message, "rank 1 of 3 failed"), !broken) << message;
    world.barrier();
    EXPECT_TRUE(store.list().empty());
    EXPECT_FALSE(std::filesystem::exists(store.step_folder(7).string() + ".tmp"));
    world.barrier();
    CheckpointStore whole(folder_ / "store");
    whole.save(contents, world);
    world.barrier();
    EXPECT_EQ(whole.open(7).manifest().files.size(), 4u);
    whole.open(7).verify();
  });
}

// Poisons a weight of rank 1 for the step after the third, so that its router alone refuses the values.
TEST_F(Ranks, a_value_that_one_router_refuses_is_skipped_by_all) {
  const auto weight = [this](int rank) {
    return trainers_[static_cast<size_t>(rank)]
        ->model()
        .named_parameters()["layers_0.input_layernorm.weight"];
  };
  const auto poison = [&](int rank) {
    TrainerHooks hooks;
    hooks.on_step = [&weight, rank](const StepReport& report) {
      const c10::NoGradGuard no_grad;
      if (rank == 1 && report.step == 3) weight(1)[0] = NAN;
      if (rank == 1 && report.step == 4) weight(1).copy_(weight(0));
      EXPECT_EQ(report.skipped, report.step == 4);
    };
    return hooks;
  };
  const std::vector<std::string> skip = {"training.on_nonfinite=skip"};
  for (const auto& layout : {Layout{2, 1}, Layout{2, 2}, Layout{4, 2}, Layout{8, 4}}) {
    for (const char* type : {"all_to_all", "all_gather"}) {
      if (layout.expert_parallel == 1 && type == std::string("all_gather")) continue;
      const auto run = fmt::format("{}_{}_{}", type, layout.ranks, layout.expert_parallel);
      auto overrides = skip;
      if (layout.expert_parallel > 1) overrides.push_back(fmt::format("model.moe.dispatcher.type={}", type));
      EXPECT_EQ(train_on(layout, read_for(layout, run, overrides), poison).step, 5);
      EXPECT_EQ(metrics(run).at("train/skipped_steps"), (std::vector<double>{0, 0, 0, 1, 1})) << run;
      expect_same_training("all_to_all_2_1", run, 5);
    }
  }
  const auto message = failure([&] { train_on({2, 2}, read_for({2, 2}, "error"), poison); });
  EXPECT_TRUE(has(message, "refused its values") || has(message, "logits are NaN")) << message;
}

TEST_F(Ranks, what_fails_on_one_is_told_by_all) {
  const auto config = read_for({4, 2}, "run");
  const auto message = failure([&] {
    train_on({4, 2}, config, [&](int rank) {
      TrainerHooks hooks;
      hooks.on_step = [rank](const StepReport& report) {
        if (rank == 3 && report.step == 2) throw Error("rank 3 has had enough");
      };
      return hooks;
    });
  });
  EXPECT_EQ(message, "rank 3 has had enough");
}

}  // namespace
}  // namespace conclave::train
