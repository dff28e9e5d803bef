// SPDX-License-Identifier: Apache-2.0
#include <c10/core/CPUAllocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "conclave/model/accounting.h"
#include "conclave/model/language_model.h"
#include "conclave/moe/routers/topk.h"
#include "model/step_memory.h"

namespace {

using namespace conclave;

model::ModelOptions mixed() {
  return {.hidden_size = 20,
          .num_hidden_layers = 4,
          .num_attention_heads = 6,
          .num_key_value_heads = 2,
          .head_dim = 10,
          .intermediate_size = 33,
          .qk_norm = nn::QkNorm::kHead,
          .tie_word_embeddings = true,
          .moe = model::MoeOptions{.num_experts = 7,
                                   .moe_intermediate_size = 11,
                                   .first_k_dense_replace = 1,
                                   .num_shared_experts = 2,
                                   .shared_expert_gate = true,
                                   .router = {"topk", moe::TopKOptions{.top_k = 3}}}};
}

TEST(Accounting, equals_a_count_by_hand) {
  const auto a = model::account(mixed(), 50, 3, 100, 4);
  // Each layer: q 20x60, k and v 20x20, o 60x20; norms 2x20 and 2x10. Dense: 3x20x33. Expert: 3x20x11;
  // shared: 3x20x22 and a gate of 20; router 20x7.
  const int64_t attention = 1200 + 400 + 400 + 1200, norms = 40 + 20, dense = 1980, expert = 660;
  const int64_t always = 1320 + 20 + 140, head = 50 * 20, last_norm = 20;
  EXPECT_EQ(a.total_parameters,
            4 * (attention + norms) + dense + 3 * (always + 7 * expert) + head + last_norm);
  EXPECT_EQ(a.active_parameters,
            4 * (attention + norms) + dense + 3 * (always + 3 * expert) + head + last_norm);
  EXPECT_EQ(a.training_state_bytes, 4 * 4 * a.total_parameters);
  const double matrices = 4 * attention + dense + 3 * (always + 3 * expert) + head;
  EXPECT_DOUBLE_EQ(a.flops_per_token, 6 * matrices + 12.0 * 4 * 60 * 100);
}

TEST(Accounting, an_untied_head_is_one_more_matrix_and_no_more_work) {
  auto untied = mixed();
  untied.tie_word_embeddings = false;
  const auto a = model::account(mixed(), 50, 3, 100, 4), b = model::account(untied, 50, 3, 100, 4);
  EXPECT_EQ(b.total_parameters - a.total_parameters, 1000);
  EXPECT_EQ(b.active_parameters - a.active_parameters, 1000);
  EXPECT_EQ(b.flops_per_token, a.flops_per_token);
}

TEST(Accounting, equals_the_parameters_of_the_built_model_in_every_arrangement) {
  for (const int64_t dense_first : {0, 1, 4}) {
    for (const bool tied : {false, true}) {
      for (const auto qk_norm : {nn::QkNorm::kNone, nn::QkNorm::kHead, nn::QkNorm::kFull}) {
        auto options = mixed();
        options.moe->first_k_dense_replace = dense_first;
        options.tie_word_embeddings = tied;
        options.qk_norm = qk_norm;
        model::LanguageModel m(options, 50, moe::builtin(), 1, at::kFloat);
        int64_t total = 0, active = 0;
        for (const auto& p : nn::tagged_parameters(m)) {
          total += p.tensor.numel();
          active += p.tag.expert_dim ? p.tensor.numel() / 7 * 3 : p.tensor.numel();
        }
        const auto a = model::account(options, 50, 3, 100, 4);
        EXPECT_EQ(a.total_parameters, total);
        EXPECT_EQ(a.active_parameters, active);
      }
    }
  }
}

// Most that forward and backward allocate at a time beside parameters and their gradients.
int64_t measured_bytes(const model::ModelOptions& options, int64_t rows, int64_t length,
                       c10::ScalarType activations, model::Recompute recompute,
                       std::shared_ptr<comm::Communicator> expert_parallel = {}) {
  model::LanguageModel m(options, 257, moe::builtin(), 1, at::kFloat, activations,
                         std::move(expert_parallel));
  m.set_recompute(recompute);
  for (const auto& p : nn::tagged_parameters(m)) p.tensor.mutable_grad() = at::zeros_like(p.tensor);
  const auto batch = full_rows(rows, length);
  const auto peak = std::make_shared<PeakMemory>(c10::DeviceType::CPU);
  moe::ForwardContext context;
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, peak);
    m.loss(batch, context).sum.backward();
  }
  return peak->peak();
}

TEST(Accounting, the_activation_estimate_is_near_what_a_step_allocates) {
  auto moe = mixed();
  moe.hidden_size = 60;
  moe.head_dim = 12;
  moe.num_key_value_heads = 6;
  moe.intermediate_size = 130;
  moe.moe->moe_intermediate_size = 70;
  auto dense = moe;
  dense.moe.reset();
  dense.qk_norm = nn::QkNorm::kNone;
  auto deep = moe;
  deep.num_hidden_layers = 9;
  for (const auto& options : {moe, dense, deep}) {
    for (const int64_t length : {90, 310}) {
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        for (const auto recompute :
             {model::Recompute::kNone, model::Recompute::kSelective, model::Recompute::kFull}) {
          const auto measured = static_cast<double>(measured_bytes(options, 6, length, dtype, recompute));
          const auto estimate = static_cast<double>(model::activation_bytes(options, 257,
                                                                            {.size = 6,
                                                                             .seq_length = length,
                                                                             .active_experts = 3,
                                                                             .activations = dtype,
                                                                             .recompute = recompute}));
          EXPECT_GT(estimate, 0.75 * measured)
              << length << " " << dtype << " " << static_cast<int>(recompute);
          EXPECT_LT(estimate, 1.25 * measured)
              << length << " " << dtype << " " << static_cast<int>(recompute);
        }
      }
    }
  }
}

TEST(Accounting, a_rank_holds_its_experts_and_its_part_of_the_moments) {
  auto options = mixed();
  options.moe->num_experts = 8;
  const auto one = model::account(options, 50, 3, 100, 4);
  for (const int ranks : {2, 4}) {
    int64_t held = 0;
    comm::run_ranks(ranks, [&](comm::Communicator& c) {
      model::LanguageModel m(options, 50, moe::builtin(), 1, at::kFloat, {}, comm::borrowed(c));
      if (c.rank() != 0) return;
      for (const auto& p : nn::tagged_parameters(m)) held += p.tensor.numel();
    });
    const auto bytes = [&](bool shared_moments) {
      const model::RankShare share{
          .ranks = 2 * ranks, .expert_ranks = ranks, .shared_moments = shared_moments};
      return model::account(options, 50, 3, 100, 4, {}, share).training_state_bytes;
    };
    EXPECT_EQ(bytes(false), 4 * 4 * held);
    EXPECT_EQ(bytes(true), 2 * 4 * (held + one.total_parameters / (2 * ranks)));
  }
}

TEST(Accounting, the_activation_estimate_counts_what_arrives_from_other_ranks) {
  auto options = mixed();
  options.hidden_size = 60;
  options.head_dim = 12;
  options.moe->num_experts = 8;
  options.moe->moe_intermediate_size = 70;
  for (const bool gather : {false, true}) {
    options.moe->dispatcher.type =
        gather ? model::DispatcherType::kAllGather : model::DispatcherType::kAllToAll;
    double measured = 0;
    comm::run_ranks(4, [&](comm::Communicator& c) {
      const auto mine = static_cast<double>(
          measured_bytes(options, 6, 90, at::kFloat, model::Recompute::kNone, comm::borrowed(c)));
      double sum[] = {mine};
      c.all_reduce({sum, 1, comm::DataType::kFloat64});
      if (c.rank() == 0) measured = sum[0] / 4;
    });
    const auto estimate = static_cast<double>(
        model::activation_bytes(options, 257,
                                {.size = 6,
                                 .seq_length = 90,
                                 .active_experts = 3,
                                 .share = {.ranks = 4, .expert_ranks = 4, .gather_tokens = gather}}));
    EXPECT_GT(estimate, 0.75 * measured) << gather;
    EXPECT_LT(estimate, 1.25 * measured) << gather;
  }
}

}  // namespace
