// SPDX-License-Identifier: Apache-2.0
#include "conclave/model/language_model.h"

#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include "conclave/model/accounting.h"
#include "conclave/moe/routers/topk.h"

namespace {

using namespace conclave;

constexpr int64_t kVocab = 29;

model::ModelOptions tiny() {
  return {.hidden_size = 12,
          .num_hidden_layers = 2,
          .num_attention_heads = 3,
          .num_key_value_heads = 1,
          .intermediate_size = 10,
          .qk_norm = nn::QkNorm::kHead,
          .moe = model::MoeOptions{.num_experts = 5,
                                   .moe_intermediate_size = 7,
                                   .first_k_dense_replace = 1,
                                   .num_shared_experts = 1,
                                   .router = {"topk", moe::builtin().routers.at("topk").defaults()}}};
}

model::LanguageModel make(const model::ModelOptions& options) {
  return {options, kVocab, moe::builtin(), 3, at::kDouble};
}

// Rows of tokens as given; documents by id, -1 is padding; every real token predicts token + 1.
data::Batch batch_of(const std::vector<std::vector<int32_t>>& tokens,
                     const std::vector<std::vector<int32_t>>& documents) {
  data::Batch batch;
  batch.num_sequences = static_cast<int64_t>(tokens.size());
  batch.seq_length = static_cast<int64_t>(tokens[0].size());
  for (size_t r = 0; r < tokens.size(); ++r) {
    int32_t position = 0;
    for (size_t i = 0; i < tokens[r].size(); ++i) {
      const int32_t document = documents[r][i];
      position = i > 0 && documents[r][i - 1] == document ? position + 1 : 0;
      batch.token.push_back(document < 0 ? 0 : tokens[r][i]);
      batch.target.push_back(document < 0 ? -1 : (tokens[r][i] + 1) % kVocab);
      batch.document.push_back(document);
      batch.position.push_back(position);
      batch.domain.push_back(document < 0 ? -1 : 0);
      batch.global_id.push_back(static_cast<int64_t>(batch.global_id.size()));
      batch.num_tokens += document >= 0;
      batch.num_targets += document >= 0;
    }
  }
  return batch;
}

at::Tensor logits(model::LanguageModel& m, const data::Batch& batch) {
  moe::ForwardContext context;
  return m.logits(batch, context);
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).abs().max().item<double>();
}

TEST(LanguageModel, a_token_sees_only_earlier_tokens_of_its_own_document) {
  auto m = make(tiny());
  const auto base = logits(m, batch_of({{1, 2, 3, 4, 5, 6, 7}}, {{0, 0, 0, 0, 1, 1, 1}}));
  const auto later = logits(m, batch_of({{1, 2, 3, 9, 5, 6, 7}}, {{0, 0, 0, 0, 1, 1, 1}}));
  EXPECT_LE(difference(base.narrow(1, 0, 3), later.narrow(1, 0, 3)), 1e-9);  // the future
  EXPECT_LE(difference(base.narrow(1, 4, 3), later.narrow(1, 4, 3)), 1e-9);  // the other document
  EXPECT_GT(difference(base.narrow(1, 3, 1), later.narrow(1, 3, 1)), 1e-3);
}

TEST(LanguageModel, packing_a_document_behind_another_one_changes_nothing) {
  auto m = make(tiny());
  const auto alone = logits(m, batch_of({{5, 6, 7}}, {{0, 0, 0}}));
  const auto packed = logits(m, batch_of({{1, 2, 3, 4, 5, 6, 7}}, {{0, 0, 0, 0, 1, 1, 1}}));
  EXPECT_LE(difference(packed.narrow(1, 4, 3), alone), 1e-9);
}

TEST(LanguageModel, padding_changes_no_loss_and_no_count) {
  auto m = make(tiny());
  moe::ForwardContext a, b;
  const auto plain = m.loss(batch_of({{1, 2, 3}, {4, 5, 6}}, {{0, 0, 0}, {0, 0, 0}}), a);
  const auto padded =
      m.loss(batch_of({{1, 2, 3, 0, 0}, {4, 5, 6, 0, 0}}, {{0, 0, 0, -1, -1}, {0, 0, 0, -1, -1}}), b);
  EXPECT_LE(difference(plain.sum, padded.sum), 1e-9);
  const auto& counts = std::get<moe::SparsePlan>(b.traces.at(0).plan.body).requested_E;
  EXPECT_EQ(counts.sum().item<int64_t>(), 2 * 6);
}

TEST(LanguageModel, every_parameter_gets_a_finite_gradient_and_the_accounting_counts_them) {
  auto m = make(tiny());
  moe::ForwardContext context;
  m.loss(batch_of({{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}}, {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}),
         context)
      .sum.backward();
  int64_t total = 0;
  for (const auto& p : nn::tagged_parameters(m)) {
    ASSERT_TRUE(p.tensor.grad().defined()) << p.name;
    EXPECT_TRUE(p.tensor.grad().isfinite().all().item<bool>()) << p.name;
    total += p.tensor.numel();
  }
  EXPECT_EQ(model::account(tiny(), kVocab, 2, 13, 8).total_parameters, total);
}

TEST(LanguageModel, gradients_match_central_differences) {
  auto options = tiny();
  options.tie_word_embeddings = true;
  auto m = make(options);
  const auto batch = batch_of({{1, 2, 3, 4, 5}, {6, 7, 8, 9, 10}}, {{0, 0, 0, 1, 1}, {0, 0, 0, 0, -1}});
  const auto loss = [&] {
    moe::ForwardContext context;
    return m.loss(batch, context).sum;
  };
  loss().backward();
  const c10::NoGradGuard no_grad;
  for (const auto& p : nn::tagged_parameters(m)) {
    if (p.tag.role == nn::ParamRole::kExpert)
      continue;  // covered against the plain loop; a step may flip a route here
    const auto flat = p.tensor.view({-1});
    const int64_t i = flat.numel() / 2;
    const double before = flat[i].item<double>(), step = 1e-6;
    flat[i] = before + step;
    const double up = loss().item<double>();
    flat[i] = before - step;
    const double down = loss().item<double>();
    flat[i] = before;
    EXPECT_NEAR(p.tensor.grad().view({-1})[i].item<double>(), (up - down) / (2 * step), 1e-5) << p.name;
  }
}

TEST(LanguageModel, bf16_activations_stay_near_fp32_and_parameters_and_gradients_are_fp32) {
  const auto batch =
      batch_of({{3, 5, 1, 7, 2, 9}, {4, 4, 8, 0, 6, 1}}, {{0, 0, 0, 1, 1, 1}, {0, 0, 0, 0, -1, -1}});
  auto options = tiny();
  options.initializer_range = 0.2;
  options.moe->router.options.as<moe::TopKOptions>().top_k =
      5;  // all experts: no choice can flip by rounding
  const auto gradients = [&](c10::ScalarType activations) {
    model::LanguageModel m(options, kVocab, moe::builtin(), 3, at::kFloat, activations);
    moe::ForwardContext context;
    m.loss(batch, context).sum.backward();
    EXPECT_EQ(context.traces.at(0).logits_UE.scalar_type(), at::kFloat);
    std::vector<at::Tensor> all;
    for (const auto& p : nn::tagged_parameters(m)) {
      EXPECT_EQ(p.tensor.grad().scalar_type(), at::kFloat) << p.name;
      all.push_back(p.tensor.grad().clone().flatten());
    }
    return at::cat(all);
  };
  const auto bf16 = gradients(at::kBFloat16), fp32 = gradients(at::kFloat);
  EXPECT_LE(bf16.sub(fp32).norm().item<double>(), 2e-2 * fp32.norm().item<double>());
  EXPECT_GT(bf16.sub(fp32).norm().item<double>(), 0.0) << "the residual stream was not bf16";
}

}  // namespace
