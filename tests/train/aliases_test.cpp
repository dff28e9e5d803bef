// SPDX-License-Identifier: Apache-2.0
// Spellings of other frameworks: read with a note, refused beside their canonical key.
#include "conclave/config/load.h"
#include "conclave/moe/losses/losses.h"
#include "conclave/moe/routers/topk.h"
#include "train/small_run.h"

namespace conclave::train {
namespace {

constexpr const char* kRest = R"(
data: {train: [{corpus: domains4}]}
training: {train_iters: 3}
)";

class Aliases : public SmallRun {
 protected:
  RunConfig read_text(const std::string& model) {
    write("alias.yaml", model + kRest);
    log_.clear();
    const Log log([this](LogLevel, const std::string& message) { log_ += message + "\n"; });
    return read_run_config(folder_ / "alias.yaml", {}, registry_, nullptr, log);
  }
  std::string refusal(const std::string& model) {
    return failure([&] { read_text(model); });
  }
};

TEST_F(Aliases, the_moe_keys_of_a_config_json_may_stand_directly_under_model) {
  const auto config = read_text(R"(
model:
  hidden_size: 32
  hidden_act: silu
  num_local_experts: 6
  num_experts_per_tok: 3
  moe_intermediate_size: 24
  n_shared_experts: 2
  first_k_dense_replace: 1
  decoder_sparse_step: 2
  scoring_func: sigmoid
  norm_topk_prob: false
  routed_scaling_factor: 2.5
  router_aux_loss_coef: 0.02
  router_z_loss_coef: 0.003
)");
  const auto& moe = config.model.moe.value();
  EXPECT_EQ(moe.num_experts, 6);
  EXPECT_EQ(moe.moe_intermediate_size, 24);
  EXPECT_EQ(moe.num_shared_experts, 2);
  EXPECT_EQ(moe.first_k_dense_replace, 1);
  EXPECT_EQ(moe.decoder_sparse_step, 2);
  const auto& router = moe.router.options.as<moe::TopKOptions>();
  EXPECT_EQ(router.top_k, 3);
  EXPECT_EQ(router.score_function, moe::ScoreFunction::kSigmoid);
  EXPECT_FALSE(router.norm_topk_prob);
  EXPECT_EQ(router.routed_scaling_factor, 2.5);
  ASSERT_EQ(moe.aux_losses.size(), 2u);
  EXPECT_EQ(moe.aux_losses[0].type, "load_balancing");
  EXPECT_EQ(moe.aux_losses[0].options.as<moe::LoadBalancingOptions>().weight.at(0), 0.02);
  EXPECT_EQ(moe.aux_losses[1].options.as<moe::ZLossOptions>().weight.at(0), 0.003);
  EXPECT_TRUE(has(log_, "alias.yaml:5:3: note: 'model.num_local_experts' is read as 'model.moe.num_experts'"))
      << log_;
  EXPECT_TRUE(has(log_, "'model.router_aux_loss_coef' is read as the weight of a load_balancing entry"))
      << log_;
  EXPECT_EQ(std::count(log_.begin(), log_.end(), '\n'), 11) << log_;
}

TEST_F(Aliases, the_names_of_other_trainers_stand_in_the_moe_section_or_with_the_router) {
  for (const char* text : {R"(
model:
  moe: {num_moe_experts: 6, moe_ffn_hidden_size: 24, moe_router_topk: 3, moe_router_score_function: sigmoid,
        moe_router_topk_scaling_factor: 2.5, moe_expert_capacity_factor: 1.5, moe_aux_loss_coeff: 0.02,
        moe_z_loss_coeff: 0.003, balance_update: {type: loss_free, moe_router_bias_update_rate: 0.004}}
)",
                           R"(
model:
  moe: {n_routed_experts: 6, moe_ffn_hidden_size: 24, balance_update: {type: loss_free, rate: 0.004},
        aux_losses: [{type: load_balancing, weight: 0.02}, {type: z_loss, weight: 0.003}],
        router: {num_experts_per_tok: 3, scoring_func: sigmoid, scaling_factor: 2.5,
                 moe_expert_capacity_factor: 1.5}}
)"}) {
    const auto config = read_text(text);
    const auto& moe = config.model.moe.value();
    const auto& router = moe.router.options.as<moe::TopKOptions>();
    EXPECT_EQ(moe.num_experts, 6);
    EXPECT_EQ(moe.moe_intermediate_size, 24);
    EXPECT_EQ(router.top_k, 3);
    EXPECT_EQ(router.score_function, moe::ScoreFunction::kSigmoid);
    EXPECT_EQ(router.routed_scaling_factor, 2.5);
    EXPECT_EQ(router.capacity.factor->at(0), 1.5);
    EXPECT_EQ(moe.balance_update.options.as<moe::LossFreeOptions>().rate.at(0), 0.004);
    EXPECT_EQ(moe.aux_losses.size(), 2u);
  }
}

TEST_F(Aliases, an_alias_beside_its_canonical_key_is_refused_with_the_place) {
  const auto experts = refusal("model:\n  num_local_experts: 6\n  moe: {num_experts: 6}\n");
  EXPECT_TRUE(has(experts,
                  "alias.yaml:2:3: error: 'model.num_local_experts' and 'model.moe.num_experts' are the "
                  "same key"))
      << experts;
  const auto top_k = refusal("model:\n  moe:\n    num_experts_per_tok: 2\n    router: {top_k: 2}\n");
  EXPECT_TRUE(
      has(top_k, "alias.yaml:3:5: error: 'model.moe.num_experts_per_tok' and 'model.moe.router.top_k'"))
      << top_k;
  const auto nested = refusal("model:\n  num_experts_per_tok: 2\n  moe:\n    router: {moe_router_topk: 2}\n");
  EXPECT_TRUE(has(nested, "'moe_router_topk' are the same key") || has(nested, "'top_k' are the same key"))
      << nested;
  const auto loss =
      refusal("model:\n  router_aux_loss_coef: 0.1\n  moe: {aux_losses: [{type: load_balancing}]}\n");
  EXPECT_TRUE(
      has(loss, "alias.yaml:2:3: error: 'model.router_aux_loss_coef' and model.moe.aux_losses both set"))
      << loss;
}

TEST_F(Aliases, a_mistake_in_an_alias_points_at_where_it_was_written) {
  const auto message = refusal("model:\n  num_experts_per_tok: 9\n  num_experts: 8\n");
  EXPECT_TRUE(
      has(message, "alias.yaml:2:24: error: model.moe.router: each token takes 9 experts, but there are 8"))
      << message;
}

TEST_F(Aliases, the_former_place_of_allow_noncausal_and_a_list_of_held_out_sources_are_read) {
  write("alias.yaml", R"(
model: {moe: {router: {type: soft}, allow_noncausal: true}}
data: {train: [{corpus: domains4}], valid: [{path: held_out.txt}]}
training: {train_iters: 3}
)");
  const auto config = read_run_config(folder_ / "alias.yaml", {}, registry_);
  EXPECT_TRUE(config.model.moe->allow_noncausal);
  ASSERT_EQ(config.data.valid.sources.size(), 1u);
  EXPECT_EQ(config.data.valid.sources[0].path, "held_out.txt");
}

}  // namespace
}  // namespace conclave::train
