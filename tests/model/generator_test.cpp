// SPDX-License-Identifier: Apache-2.0
#include "conclave/model/generator.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/model/language_model.h"
#include "conclave/moe/routers/topk.h"

namespace {

using namespace conclave;

struct Shape {
  const char* name;
  int64_t key_value_heads;
  nn::QkNorm qk_norm;
  int64_t decoder_sparse_step;  // 2: dense and MoE layers alternate
  bool shared;
  c10::ScalarType dtype;
};

model::ModelOptions options_of(const Shape& shape) {
  moe::TopKOptions router{.top_k = 2};
  router.capacity.factor = 0.5;  // would drop tokens if generation had a limit
  router.capacity.min = 1;
  return {.hidden_size = 18,
          .num_hidden_layers = 3,
          .num_attention_heads = 6,
          .num_key_value_heads = shape.key_value_heads,
          .head_dim = 10,
          .intermediate_size = 11,
          .qk_norm = shape.qk_norm,
          .initializer_range = 0.3,
          .moe = model::MoeOptions{.num_experts = 5,
                                   .moe_intermediate_size = 7,
                                   .decoder_sparse_step = shape.decoder_sparse_step,
                                   .num_shared_experts = shape.shared ? 1 : 0,
                                   .shared_expert_gate = shape.shared,
                                   .router = {"topk", router}}};
}

std::vector<int32_t> some_tokens(int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>((i * i * 31 + 7 * i + 3) % 257));
  return tokens;
}

at::Tensor whole_logits(model::LanguageModel& m, const std::vector<int32_t>& tokens) {
  data::Batch batch;
  batch.num_sequences = 1;
  batch.seq_length = static_cast<int64_t>(tokens.size());
  batch.token = tokens;
  for (size_t i = 0; i < tokens.size(); ++i) {
    batch.target.push_back(-1);
    batch.document.push_back(0);
    batch.position.push_back(static_cast<int32_t>(i));
    batch.domain.push_back(0);
    batch.global_id.push_back(static_cast<int64_t>(i));
  }
  batch.num_tokens = batch.seq_length;
  moe::ForwardContext context;
  context.phase = moe::Phase::kEval;
  return m.logits(batch, context).squeeze(0);
}

at::Tensor extended(model::LanguageModel& m, model::DecodeState& state, std::span<const int32_t> tokens) {
  moe::ForwardContext context;
  context.phase = moe::Phase::kGenerate;
  return m.extend(tokens, state, context);
}

class CachedForward : public ::testing::TestWithParam<Shape> {};

TEST_P(CachedForward, logits_equal_those_of_the_whole_forward_however_the_tokens_are_cut) {
  const auto& shape = GetParam();
  model::LanguageModel m(options_of(shape), 257, moe::builtin(), 3, shape.dtype);
  const double tolerance = shape.dtype == at::kDouble ? 1e-9 : 2e-5;
  const auto tokens = some_tokens(83);  // more than the cache's first size
  const auto want = whole_logits(m, tokens);
  const double scale = want.abs().max().item<double>();
  for (const std::vector<size_t>& cuts :
       {std::vector<size_t>{83}, {1}, {7, 1}, {70, 6, 1, 5, 1}, {2, 80, 1}}) {
    model::DecodeState state;
    std::vector<at::Tensor> parts;
    size_t at = 0;
    for (size_t i = 0; at < tokens.size(); ++i) {
      const size_t count = std::min(cuts[std::min(i, cuts.size() - 1)], tokens.size() - at);
      parts.push_back(extended(m, state, std::span(tokens).subspan(at, count)));
      at += count;
    }
    EXPECT_EQ(state.length, 83);
    EXPECT_LE(at::cat(parts).sub(want).abs().max().item<double>(), tolerance * scale) << cuts[0];
  }
}

TEST_P(CachedForward, a_truncated_cache_continues_as_if_the_rest_had_never_been) {
  const auto& shape = GetParam();
  model::LanguageModel m(options_of(shape), 257, moe::builtin(), 3, shape.dtype);
  const auto tokens = some_tokens(20);
  model::DecodeState fresh, cut;
  extended(m, fresh, std::span(tokens).first(9));
  extended(m, cut, std::span(tokens).first(9));
  extended(m, cut, std::span(tokens).last(11));
  cut.truncate(9);
  const auto a = extended(m, fresh, std::span(tokens).subspan(3, 1));
  const auto b = extended(m, cut, std::span(tokens).subspan(3, 1));
  EXPECT_TRUE(a.equal(b));
}

constexpr auto kNone = nn::QkNorm::kNone, kHead = nn::QkNorm::kHead, kFull = nn::QkNorm::kFull;
INSTANTIATE_TEST_SUITE_P(Shapes, CachedForward,
                         ::testing::Values(Shape{"plain", 6, kNone, 1, false, at::kDouble},
                                           Shape{"gqa", 2, kHead, 2, true, at::kDouble},
                                           Shape{"mqa", 1, kFull, 2, false, at::kDouble},
                                           Shape{"plain_fp32", 6, kNone, 1, false, at::kFloat},
                                           Shape{"gqa_fp32", 2, kHead, 2, true, at::kFloat},
                                           Shape{"mqa_fp32", 1, kFull, 2, false, at::kFloat}),
                         [](const auto& info) { return info.param.name; });

class GeneratorTest : public ::testing::Test {
 protected:
  std::shared_ptr<model::LanguageModel> model_ = std::make_shared<model::LanguageModel>(
      options_of({"", 2, kHead, 2, true, at::kDouble}), 260, moe::builtin(), 5, at::kDouble);
  model::Generator generator_{*model_, data::byte_tokenizer()};
};

TEST_F(GeneratorTest, temperature_zero_takes_the_likeliest_token_of_the_whole_forward_each_time) {
  const auto text = generator_.generate("ab", {.max_tokens = 12, .temperature = 0});
  std::vector<int32_t> tokens{256, 'a', 'b'};
  for (const char c : text) {
    const auto logits = whole_logits(*model_, tokens);
    EXPECT_EQ(logits[logits.size(0) - 1].narrow(0, 0, 257).argmax().item<int64_t>(),
              static_cast<unsigned char>(c));
    tokens.push_back(static_cast<unsigned char>(c));
  }
  EXPECT_FALSE(text.empty());
}

TEST_F(GeneratorTest, a_sample_depends_on_seed_and_index_only_and_streams_what_it_returns) {
  const model::SamplingOptions options{.max_tokens = 30, .temperature = 1.5, .seed = 9};
  const auto second = generator_.generate("xyz", options, 1);
  generator_.generate("other prompt", options, 0);
  std::string streamed;
  const auto again =
      generator_.generate("xyz", options, 1, [&](std::string_view piece) { streamed += piece; });
  EXPECT_EQ(second, again);
  EXPECT_EQ(streamed, again);
  EXPECT_NE(second, generator_.generate("xyz", options, 2));
  auto other_seed = options;
  other_seed.seed = 10;
  EXPECT_NE(second, generator_.generate("xyz", other_seed, 1));
}

TEST_F(GeneratorTest, limits_of_the_options_are_kept) {
  EXPECT_EQ(generator_.generate("a", {.max_tokens = 0}), "");
  EXPECT_LE(generator_.generate("a", {.max_tokens = 3}).size(), 3u);
  EXPECT_THROW(generator_.generate("a", {.temperature = -1}), Error);
  EXPECT_THROW(generator_.generate("a", {.top_p = 0}), Error);
  EXPECT_THROW(generator_.generate("a", {.max_tokens = -1}), Error);
}

TEST(Sampling, frequencies_are_those_of_the_tempered_nucleus) {
  const auto logits = at::tensor({std::log(0.1), std::log(0.6), std::log(0.1), std::log(0.2)}, at::kDouble);
  const auto share = [&](const model::SamplingOptions& options, int32_t token) {
    int hits = 0;
    for (int i = 0; i < 1000; ++i) hits += model::sample_token(logits, options, (i + 0.5) / 1000) == token;
    return hits / 1000.0;
  };
  EXPECT_NEAR(share({}, 1), 0.6, 1e-3);
  EXPECT_NEAR(share({}, 0), 0.1, 1e-3);
  EXPECT_NEAR(share({.top_p = 0.75}, 1), 0.75, 1e-3);  // 0.6 and 0.2 are left
  EXPECT_NEAR(share({.top_p = 0.75}, 3), 0.25, 1e-3);
  EXPECT_NEAR(share({.top_p = 0.59}, 1), 1.0, 1e-3);
  EXPECT_NEAR(share({.temperature = 0.5}, 1), 0.36 / (0.36 + 0.04 + 0.02), 1e-3);
  EXPECT_EQ(model::sample_token(at::tensor({1.0, 3.0, 3.0}, at::kFloat), {.temperature = 0}, 0.99), 1);
  EXPECT_THROW(model::sample_token(at::tensor({1.0, NAN}, at::kFloat), {.temperature = 0}, 0.5), Error);
}

std::string refusal(const model::ModelOptions& options) {
  try {
    return "allowed: " + check_generation(options, moe::builtin());
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(CheckGeneration, refuses_what_cannot_be_continued_and_says_why) {
  auto options = options_of({"", 2, kNone, 1, false, at::kDouble});
  EXPECT_NE(refusal(options).find("generation drops none"), std::string::npos);
  auto& router = options.moe->router;
  router.options.as<moe::TopKOptions>().capacity.eval_factor = 2.0;
  EXPECT_NE(refusal(options).find("capacity.eval_factor=null"), std::string::npos);
  router.options = moe::TopKOptions{};
  EXPECT_EQ(refusal(options), "allowed: ");
  for (const char* name : {"soft", "expert_choice"}) {
    router = {name, moe::builtin().routers.at(name).defaults()};
    EXPECT_NE(refusal(options).find("looks at later tokens"), std::string::npos) << name;
  }
  options.moe.reset();
  EXPECT_EQ(refusal(options), "allowed: ");
  options.objective = model::Objective::kMaskedLm;
  EXPECT_NE(refusal(options).find("masked_lm"), std::string::npos);
}

}  // namespace
