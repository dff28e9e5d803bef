// SPDX-License-Identifier: Apache-2.0
#include "router.h"

#include <cmath>

#include "device_array.h"

namespace conclave::kernels {
namespace {

class RouterTest : public DeviceTest {
 protected:
  void check(const RouterShape& s, bool biased, bool with_sums) {
    SCOPED_TRACE(testing::Message() << s.tokens << " x " << s.num_experts << " top " << s.top_k << " groups "
                                    << s.num_groups << (s.sigmoid ? " sigmoid" : " softmax")
                                    << (s.normalise ? " normalised" : "") << (biased ? " biased" : ""));
    const auto experts = static_cast<size_t>(s.num_experts), size = static_cast<size_t>(s.tokens) * experts;
    const auto choices = static_cast<size_t>(s.tokens * s.top_k);
    auto logits = random_values<float>(size, 1, 2.0);
    // A few that are no numbers, a token that has none, and one with a single one.
    std::mt19937 engine(2);
    for (auto& value : logits) value = engine() % 50 == 0 ? (engine() % 2 ? NAN : -INFINITY) : value;
    for (size_t e = 0; s.tokens > 4 && e < experts; ++e) logits[e] = logits[3 * experts + e] = NAN;
    if (s.tokens > 4) logits[3 * experts + experts / 2] = 0.25f;
    const auto bias = random_values<float>(experts, 3, 0.1);

    std::vector<int32_t> chosen(choices), counts(experts), non_finite(1);
    std::vector<float> weight(choices), scores(size), sums(experts), z(1);
    RouterForward<float> forward{.shape = s,
                                 .logits = logits.data(),
                                 .bias = biased ? bias.data() : nullptr,
                                 .chosen = chosen.data(),
                                 .weight = weight.data(),
                                 .scores = with_sums ? scores.data() : nullptr,
                                 .counts = counts.data(),
                                 .score_sums = with_sums ? sums.data() : nullptr,
                                 .z_sum = with_sums ? z.data() : nullptr,
                                 .non_finite = non_finite.data()};
    router_forward_ref(forward);
    const DeviceArray<float> logits_d(logits), bias_d(bias), weight_d(choices), scores_d(size),
        sums_d(experts), z_d(1);
    const DeviceArray<int32_t> chosen_d(choices, 0x5a), counts_d(experts, 0x5a), non_finite_d(1, 0x5a);
    const DeviceArray<unsigned char> scratch_d(static_cast<size_t>(cuda::router_scratch_bytes(s)));
    expect_ok(cuda::router_forward({.shape = s,
                                    .logits = logits_d.data(),
                                    .bias = biased ? bias_d.data() : nullptr,
                                    .chosen = chosen_d.data(),
                                    .weight = weight_d.data(),
                                    .scores = with_sums ? scores_d.data() : nullptr,
                                    .counts = counts_d.data(),
                                    .score_sums = with_sums ? sums_d.data() : nullptr,
                                    .z_sum = with_sums ? z_d.data() : nullptr,
                                    .non_finite = non_finite_d.data()},
                                   scratch_d.data(), nullptr));
    ASSERT_EQ(chosen_d.host(), chosen);
    // The same choices again, whatever the bias.
    const DeviceArray<float> again_d(choices);
    expect_ok(cuda::router_forward({.shape = s,
                                    .logits = logits_d.data(),
                                    .bias = biased ? nullptr : bias_d.data(),
                                    .chosen = chosen_d.data(),
                                    .repeats = true,
                                    .weight = again_d.data(),
                                    .counts = counts_d.data(),
                                    .non_finite = non_finite_d.data()},
                                   scratch_d.data(), nullptr));
    ASSERT_EQ(chosen_d.host(), chosen);
    EXPECT_EQ(again_d.host(), weight_d.host());
    EXPECT_EQ(counts_d.host(), counts);
    EXPECT_EQ(non_finite_d.host(), non_finite);
    expect_close(weight_d.host(), weight);
    if (with_sums) expect_close(scores_d.host(), scores);
    if (with_sums) expect_close(sums_d.host(), sums);
    if (with_sums) expect_close(z_d.host(), z);

    const auto d_weight = random_values<float>(choices, 4), d_sums = random_values<float>(experts, 5),
               d_scores = random_values<float>(size, 6);
    std::vector<float> d_logits(size);
    RouterBackward<float> backward{.shape = s,
                                   .logits = logits.data(),
                                   .chosen = chosen.data(),
                                   .d_weight = d_weight.data(),
                                   .d_scores = with_sums ? d_scores.data() : nullptr,
                                   .d_score_sums = with_sums ? d_sums.data() : nullptr,
                                   .d_z_sum = with_sums ? 0.3f : 0.0f,
                                   .d_logits = d_logits.data()};
    router_backward_ref(backward);
    const DeviceArray<float> d_weight_d(d_weight), d_scores_d(d_scores), d_sums_d(d_sums), d_logits_d(size);
    backward.logits = logits_d.data();
    backward.chosen = chosen_d.data();
    backward.d_weight = d_weight_d.data();
    if (with_sums) backward.d_score_sums = d_sums_d.data();
    if (with_sums) backward.d_scores = d_scores_d.data();
    backward.d_logits = d_logits_d.data();
    expect_ok(cuda::router_backward(backward, nullptr));
    expect_close(d_logits_d.host(), d_logits);
  }
};

TEST_F(RouterTest, chooses_weighs_and_counts_as_its_twin_and_so_do_the_gradients) {
  const RouterShape shapes[] = {
      {.tokens = 0, .num_experts = 8, .top_k = 2},
      {.tokens = 1, .num_experts = 1, .top_k = 1},
      {.tokens = 63, .num_experts = 7, .top_k = 2},
      {.tokens = 131, .num_experts = 33, .top_k = 5, .scale = 2.5},
      {.tokens = 65, .num_experts = 128, .top_k = 8},
      {.tokens = 17, .num_experts = 257, .top_k = 32},
      {.tokens = 9, .num_experts = 512, .top_k = 6},
      {.tokens = 67, .num_experts = 24, .top_k = 3, .num_groups = 4, .topk_groups = 2},
      {.tokens = 67, .num_experts = 24, .top_k = 7, .num_groups = 6, .topk_groups = 2, .group_top2 = false},
      {.tokens = 19, .num_experts = 256, .top_k = 8, .scale = 2.5, .num_groups = 8, .topk_groups = 4},
  };
  for (auto shape : shapes) {
    for (const bool sigmoid : {false, true}) {
      for (const bool normalise : {false, true}) {
        for (const bool biased : {false, true}) {
          shape.sigmoid = sigmoid;
          shape.normalise = normalise;
          check(shape, biased, biased != normalise);
        }
      }
    }
  }
}

TEST_F(RouterTest, a_bias_of_zeros_is_none) {
  // Scores of 1 in fp32, logits that differ.
  const std::vector<float> logits{30.0f, 31.0f, 33.0f, 32.0f}, bias(4, 0.0f);
  const DeviceArray<float> logits_d(logits), bias_d(bias), weight_d(2);
  const DeviceArray<int32_t> chosen_d(2), counts_d(4), non_finite_d(1);
  const RouterShape shape{.tokens = 1, .num_experts = 4, .top_k = 2, .sigmoid = true};
  const DeviceArray<unsigned char> scratch_d(static_cast<size_t>(cuda::router_scratch_bytes(shape)));
  expect_ok(cuda::router_forward({.shape = shape,
                                  .logits = logits_d.data(),
                                  .bias = bias_d.data(),
                                  .chosen = chosen_d.data(),
                                  .weight = weight_d.data(),
                                  .counts = counts_d.data(),
                                  .non_finite = non_finite_d.data()},
                                 scratch_d.data(), nullptr));
  EXPECT_EQ(chosen_d.host(), (std::vector<int32_t>{2, 3}));
}

TEST_F(RouterTest, shapes_that_no_warp_holds_are_refused) {
  const auto refused = [](const RouterShape& shape) {
    return cuda::router_backward({.shape = shape}, nullptr) == cuda::Status::kInvalid &&
           cuda::router_forward({.shape = shape}, nullptr, nullptr) == cuda::Status::kInvalid;
  };
  EXPECT_TRUE(refused({.tokens = 1, .num_experts = 513, .top_k = 1}));
  EXPECT_TRUE(refused({.tokens = 1, .num_experts = 64, .top_k = 33}));
  EXPECT_TRUE(refused({.tokens = 1, .num_experts = 4, .top_k = 5}));
  EXPECT_TRUE(refused({.tokens = 1, .num_experts = 9, .top_k = 1, .num_groups = 2, .topk_groups = 1}));
  EXPECT_TRUE(refused({.tokens = 1, .num_experts = 4, .top_k = 1, .num_groups = 4, .topk_groups = 1}));
}

}  // namespace
}  // namespace conclave::kernels
