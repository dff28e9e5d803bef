// SPDX-License-Identifier: Apache-2.0
// The layout law: random runs on random legal layouts are the runs of one rank. CONCLAVE_LAYOUTS layouts are
// drawn from CONCLAVE_TEST_SEED; every variant below has its turn.
#include <cstdlib>
#include <random>

#include "comm/ranks.h"
#include "conclave/comm/checked.h"
#include "train/ranks_run.h"

namespace conclave::train {
namespace {

struct Variant {
  const char* name;
  std::vector<std::string> overrides = {};
  bool power_of_two = false;  // numbers of experts that the gate takes
};

std::string router(const std::string& options) {
  return "model.moe.router={type: " + options + "}";
}

const std::vector<Variant>& variants() {
  const std::string bidirectional = "model.objective=masked_lm",
                    no_bias = "model.moe.balance_update={type: none}", no_losses = "model.moe.aux_losses=[]";
  static const std::vector<Variant> all = {
      {"dropless", {}},
      {"one_choice_of_few_tokens", {router("topk, top_k: 1, norm_topk_prob: false"), "data.seq_length=3"}},
      {"capacity_by_position", {router("topk, top_k: 2, capacity: {factor: 0.6, order: position}")}},
      {"capacity_by_score",
       {router("topk, top_k: 2, capacity: {factor: 0.6, order: prob}, allow_noncausal: true")}},
      {"capacity_at_random",
       {router("topk, top_k: 2, capacity: {factor: 0.6, order: random}, allow_noncausal: true")}},
      {"second_expert_by_chance",
       {router("topk, top_k: 2, second_expert_policy: {train: random}, capacity: {factor: 1.0}"),
        "model.moe.aux_losses=[{type: load_balancing, weight: 0.05, choices: first}]"}},
      {"sigmoid_scores", {router("topk, top_k: 2, score_function: sigmoid, routed_scaling_factor: 1.5")}},
      {"learned_noise",
       {router("topk, top_k: 2, score_before_topk: false, noise: {type: learned_gaussian, epsilon: 0.01}"),
        no_bias, "model.moe.aux_losses=[{type: importance, weight: 0.1}, {type: load, weight: 0.1}]"}},
      {"balance_of_the_global_batch",
       {"model.moe.aux_losses=[{type: load_balancing, weight: 0.05, scope: global_batch}, {type: "
        "load_balancing, "
        "weight: 0.05}]"}},
      {"padding", {"data.packing=none"}},
      {"shared_experts", {"model.moe.num_shared_experts=1", "model.moe.shared_expert_gate=true"}},
      {"tied_embeddings", {"model.tie_word_embeddings=true", "training.recompute=full"}},
      {"recompute_the_halves", {"training.recompute=selective"}},
      {"recompute_all", {"training.recompute=full", router("topk, top_k: 2, jitter_eps: 0.1")}},
      {"dense_layers_and_clipping", {"model.moe.layers=[0]", "training.clip_grad=0.05"}},
      {"few_targets", {bidirectional, "model.masking.rate=0.03"}},
      {"dselect_k",
       {router("dselect_k, num_selectors: 2"), no_bias,
        "model.moe.aux_losses=[{type: selector_entropy, weight: 0.01}]"},
       true},
      {"expert_choice",
       {bidirectional, no_bias, no_losses, "data.packing=none",
        router("expert_choice, factor: 2.0, allow_noncausal: true")}},
      {"soft",
       {bidirectional, no_bias, no_losses, router("soft, slots_per_expert: 2, allow_noncausal: true")}},
  };
  return all;
}

class Layouts : public RanksRun {
 protected:
  static int from_environment(const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : otherwise;
  }
  template <class T>
  T one_of(const std::vector<T>& values) {
    return values[random_() % values.size()];
  }

  struct Case {
    std::string name;
    Layout layout;
    std::vector<std::string> overrides;  // of one rank, too
    std::vector<std::string> exchange = {};
    std::vector<std::string> of_layout() const {
      auto all = overrides;
      all.insert(all.end(), exchange.begin(), exchange.end());
      return all;
    }
  };
  // Case `i` of variant i mod their number.
  Case draw(int i, const std::vector<int>& sizes) {
    const auto& variant = variants()[static_cast<size_t>(i) % variants().size()];
    Layout layout{.ranks = one_of(sizes)};
    std::vector<int> divisors;
    for (int d = 1; d <= layout.ranks; ++d) {
      const bool fits = layout.ranks % d == 0 && (!variant.power_of_two || (d & (d - 1)) == 0);
      // Experts that are spread out are the point; every fifth layout has all of them everywhere.
      if (fits && (d == 1) == (i % 5 == 4 || layout.ranks == 1)) divisors.push_back(d);
    }
    if (divisors.empty()) divisors = {1};
    layout.expert_parallel = one_of(divisors);
    int experts =
        layout.expert_parallel * one_of<int>(variant.power_of_two ? std::vector{1, 2} : std::vector{1, 2, 3});
    while (experts < 3) experts *= 2;
    const int micro_batch = one_of<int>({1, 2}), accumulation = layout.ranks > 4 ? 1 : one_of<int>({1, 3});
    const int zero_stage = one_of<int>({0, 1});
    const bool spread = layout.expert_parallel > 1;
    const bool gathered = spread && one_of<int>({0, 1}) == 1, dealt = spread && one_of<int>({0, 1}) == 1;
    auto overrides = variant.overrides;
    for (const auto& text :
         {fmt::format("model.moe.num_experts={}", experts),
          fmt::format("training.micro_batch_size={}", micro_batch),
          fmt::format("training.global_batch_size={}", micro_batch * accumulation * layout.ranks),
          std::string("training.train_iters=4"), std::string("training.exit_after=3"),
          std::string("evaluation.sample_tokens=9"),
          fmt::format("model.num_hidden_layers={}", i % 3 == 0 ? 2 : 1), fmt::format("run.seed={}", i),
          fmt::format("parallelism.zero_stage={}", zero_stage)}) {
      overrides.push_back(text);
    }
    return {
        .name = fmt::format("{} {}: {} ranks, experts ({}) over {}, {} x {} sequences a rank, ZeRO stage {}",
                            i, variant.name, layout.ranks, experts, layout.expert_parallel, accumulation,
                            micro_batch, zero_stage) +
                (gathered ? ", all_gather" : "") + (dealt ? ", round_robin" : ""),
        .layout = layout,
        .overrides = overrides,
        .exchange = {fmt::format("model.moe.dispatcher.type={}", gathered ? "all_gather" : "auto"),
                     fmt::format("model.moe.dispatcher.placement={}", dealt ? "round_robin" : "static")}};
  }

  std::mt19937 random_{static_cast<uint32_t>(from_environment("CONCLAVE_TEST_SEED", 20))};
};

// First, because its ranks are forked from this process.
TEST_F(Layouts, of_processes_train_as_one_rank) {
  const int count = from_environment("CONCLAVE_LAYOUTS", 24);
  for (int i = 0; i < count; ++i) {
    const auto c = draw(i, {2, 4});
    SCOPED_TRACE(c.name);
    const auto one = fmt::format("one{}", i), many = fmt::format("many{}", i);
    comm::run_gloo_ranks(
        c.layout.ranks,
        [&](comm::Communicator& world) {
          if (world.rank() == 0) train_on({}, one, c.overrides);
          // Every operation of a third of them is compared between the ranks before it moves anything.
          const auto checked = comm::check_calls(comm::borrowed(world));
          train_rank(i % 3 == 0 ? *checked : world, c.layout, read_for(c.layout, many, c.of_layout()));
          if (world.rank() == 0) expect_same_training(one, many, 3);
        },
        std::chrono::seconds(60));
    ASSERT_FALSE(HasFailure());
  }
}

TEST_F(Layouts, of_threads_train_as_one_rank) {
  const int count = from_environment("CONCLAVE_LAYOUTS", 200);
  for (int i = 0; i < count; ++i) {
    const auto c = draw(i, {2, 2, 3, 3, 4, 4, 5, 6, 7, 8});
    SCOPED_TRACE(c.name);
    train_on({}, "one", c.overrides);
    train_on(c.layout, "many", c.of_layout());
    expect_same_training("one", "many", 3);
    if (i % 4 == 0) {  // one step in fp32, and the same bits in a second run
      auto fp32 = c.overrides;
      fp32.insert(fp32.end(), {"training.precision=fp32", "training.exit_after=1"});
      train_on({}, "one32", fp32);
      auto fp32_layout = c.exchange;
      fp32_layout.insert(fp32_layout.end(), fp32.begin(), fp32.end());
      train_on(c.layout, "many32", fp32_layout);
      train_on(c.layout, "again32", fp32_layout);
      expect_same_training("one32", "many32", 1, 2e-4);
      expect_same_training("many32", "again32", 1, 0.0);
    }
    ASSERT_FALSE(HasFailure());
    for (const char* run : {"one", "many", "one32", "many32", "again32"})
      std::filesystem::remove_all(folder_ / run);
  }
}

}  // namespace
}  // namespace conclave::train
