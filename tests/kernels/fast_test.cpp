// SPDX-License-Identifier: Apache-2.0
// Fast kernels against their plain-loop twins, in every storage type.
#include <cmath>

#include "norm.h"
#include "permute.h"
#include "rope.h"
#include "router.h"
#include "swiglu.h"
#include "values.h"

namespace {

using namespace conclave::kernels;

template <class T>
class KernelTest : public testing::Test {};
TYPED_TEST_SUITE(KernelTest, Storage);

TYPED_TEST(KernelTest, rms_norm_equals_its_twin) {
  using T = TypeParam;
  using W = wide_t<T>;
  constexpr int64_t kRows = 5, kWidth = 37;
  const auto x = random_values<T>(kRows * kWidth, 1), d = random_values<T>(kRows * kWidth, 2);
  const auto weight = random_values<W>(kWidth, 3);
  std::vector<T> out[2], d_x[2];
  std::vector<W> inv[2], d_weight[2];
  for (int ref = 0; ref < 2; ++ref) {
    out[ref].resize(kRows * kWidth);
    d_x[ref].resize(kRows * kWidth);
    inv[ref].resize(kRows);
    d_weight[ref] = random_values<W>(kWidth, 4);  // added to what is there
    (ref ? rms_norm_forward_ref<T> : rms_norm_forward<T>)(x.data(), weight.data(), 1e-6, out[ref].data(),
                                                          inv[ref].data(), kWidth, 0, kRows);
    (ref ? rms_norm_backward_ref<T> : rms_norm_backward<T>)(x.data(), weight.data(), inv[ref].data(),
                                                            d.data(), d_x[ref].data(), d_weight[ref].data(),
                                                            kWidth, 0, kRows);
  }
  expect_close(out[0], out[1]);
  expect_close(inv[0], inv[1]);
  expect_close(d_x[0], d_x[1]);
  expect_close(d_weight[0], d_weight[1]);
}

TYPED_TEST(KernelTest, rope_equals_its_twin_and_turns_back_in_place) {
  using T = TypeParam;
  constexpr int64_t kTokens = 5, kHeads = 3, kHalf = 7;
  const auto x = random_values<T>(kTokens * kHeads * 2 * kHalf, 1);
  std::vector<wide_t<T>> cosine, sine;
  for (int i = 0; i < kTokens * kHalf; ++i) {
    cosine.push_back(static_cast<wide_t<T>>(std::cos(0.3 * i)));
    sine.push_back(static_cast<wide_t<T>>(std::sin(0.3 * i)));
  }
  auto fast = x, plain = x;
  rope<T>(x.data(), cosine.data(), sine.data(), fast.data(), kHeads, kHalf, 1, 0, kTokens);
  rope_ref<T>(x.data(), cosine.data(), sine.data(), plain.data(), kHeads, kHalf, 1, 0, kTokens);
  expect_close(fast, plain);
  rope<T>(fast.data(), cosine.data(), sine.data(), fast.data(), kHeads, kHalf, -1, 0, kTokens);
  expect_close(fast, x);
}

template <class In, class Out>
void check_rows() {
  constexpr int64_t kSource = 7, kRows = 11, kWidth = 301, kUnits = 4;  // wider than one block of sum_rows
  const auto source = random_values<In>(kSource * kWidth, 1);
  const std::vector<int32_t> index{3, 0, 6, 6, 2, 1, 5, 4, 3, 0, 2};
  std::vector<Out> gathered[2];
  for (int ref = 0; ref < 2; ++ref) {
    gathered[ref].resize(kRows * kWidth);
    (ref ? gather_rows_ref<In, Out> : gather_rows<In, Out>)(source.data(), index.data(), gathered[ref].data(),
                                                            kWidth, 0, kRows);
  }
  expect_close(gathered[0], gathered[1]);

  const std::vector<int32_t> offsets{0, 3, 3, 5, 7}, row_of{6, -1, 2, 0, 0, 5, 1};
  const auto weight = random_values<wide_t<In>>(row_of.size(), 3);
  for (const auto* weights : {static_cast<const wide_t<In>*>(nullptr), weight.data()}) {
    std::vector<Out> sums[2];
    for (int ref = 0; ref < 2; ++ref) {
      sums[ref].resize(kUnits * kWidth);
      (ref ? sum_rows_ref<In, Out> : sum_rows<In, Out>)(source.data(), offsets.data(), row_of.data(), weights,
                                                        sums[ref].data(), kWidth, 0, kUnits);
    }
    expect_close(sums[0], sums[1]);
    for (int64_t i = 0; i < kWidth; ++i) ASSERT_EQ(load(sums[0][kWidth + i]), 0) << "a unit without rows";
  }
  if constexpr (std::is_same_v<In, Out>) {
    std::vector<Out> permuted[2];
    for (int ref = 0; ref < 2; ++ref) {
      permuted[ref].resize(kSource * kWidth);
      (ref ? permute_rows_ref<In> : permute_rows<In>)(source.data(), offsets.data(), row_of.data(),
                                                      permuted[ref].data(), kWidth, 0, kUnits);
    }
    expect_close(permuted[0], permuted[1]);
  }
}

TEST(MovingRows, equal_their_twins_between_all_storage_types) {
  check_rows<float, float>();
  check_rows<double, double>();
  check_rows<bfloat16, bfloat16>();
  check_rows<bfloat16, float>();
  check_rows<float, bfloat16>();
}

template <class H, class A>
void check_swiglu() {
  constexpr int64_t kRows = 5, kWidth = 37;
  const auto h = random_values<H>(kRows * 2 * kWidth, 1, 4.0);
  const auto d = random_values<A>(kRows * kWidth, 2);
  std::vector<wide_t<A>> scale = random_values<wide_t<A>>(kRows, 3);
  scale[1] = 0;  // its gradient is not zero
  std::vector<A> act[2], plain[2], d_h[2], scaled[2];
  std::vector<wide_t<A>> d_scale[2];
  for (int ref = 0; ref < 2; ++ref) {
    act[ref].resize(kRows * kWidth);
    plain[ref].resize(kRows * kWidth);
    scaled[ref].resize(kRows * kWidth);
    d_h[ref].resize(kRows * 2 * kWidth);
    d_scale[ref].resize(kRows);
    const auto forward = ref ? swiglu_forward_ref<H, A> : swiglu_forward<H, A>;
    forward(h.data(), scale.data(), act[ref].data(), kWidth, 0, kRows);
    forward(h.data(), nullptr, plain[ref].data(), kWidth, 0, kRows);
    (ref ? swiglu_backward_ref<H, A> : swiglu_backward<H, A>)(h.data(), d.data(), scale.data(),
                                                              d_h[ref].data(), scaled[ref].data(),
                                                              d_scale[ref].data(), kWidth, 0, kRows);
  }
  expect_close(act[0], act[1]);
  expect_close(plain[0], plain[1]);
  expect_close(d_h[0], d_h[1]);
  expect_close(scaled[0], scaled[1]);
  expect_close(d_scale[0], d_scale[1]);
  EXPECT_NE(d_scale[0][1], 0);
}

TEST(SwiGluKernel, equals_its_twin_in_every_pair_of_types_also_for_zero_and_negative_scales) {
  check_swiglu<float, float>();
  check_swiglu<double, double>();
  check_swiglu<bfloat16, bfloat16>();
  check_swiglu<bfloat16, float>();
}

TEST(Bfloat16, rounds_to_nearest_even_and_keeps_nan_and_infinity) {
  const auto round = [](float x) {
    bfloat16 out;
    store(out, x);
    return load(out);
  };
  EXPECT_EQ(round(1.0f), 1.0f);
  EXPECT_EQ(round(1.0f + 0x1p-8f), 1.0f);            // a tie goes to the even neighbour
  EXPECT_EQ(round(1.0f + 0x3p-8f), 1.0f + 0x1p-6f);  // and here upwards
  EXPECT_EQ(round(1.0f + 0x1p-8f + 0x1p-20f), 1.0f + 0x1p-7f);
  EXPECT_EQ(round(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(round(NAN)));
}

template <class T>
void check_router(const RouterShape& s, bool biased, bool with_sums) {
  SCOPED_TRACE(testing::Message() << s.num_experts << " top " << s.top_k << " groups " << s.num_groups
                                  << (s.sigmoid ? " sigmoid" : " softmax")
                                  << (s.normalise ? " normalised" : "") << (biased ? " biased" : ""));
  const auto experts = static_cast<size_t>(s.num_experts), size = static_cast<size_t>(s.tokens) * experts,
             choices = static_cast<size_t>(s.tokens * s.top_k);
  auto logits = random_values<T>(size, 1, 2.0);
  std::mt19937 engine(2);
  for (auto& value : logits) value = engine() % 50 == 0 ? (engine() % 2 ? NAN : -INFINITY) : value;
  for (size_t e = 0; e < experts; ++e) logits[e] = logits[3 * experts + e] = NAN;  // tokens without a number
  logits[3 * experts + experts / 2] = T(0.25);
  const auto bias = biased ? random_values<float>(experts, 3, 0.1) : std::vector<float>(experts, 0.0f);
  const auto d_weight = random_values<T>(choices, 4), d_sums = random_values<T>(experts, 5),
             d_scores = random_values<T>(size, 6);
  std::vector<int32_t> chosen[2], counts[2], non_finite[2];
  std::vector<T> weight[2], scores[2], sums[2], z[2], d_logits[2];
  for (int ref = 0; ref < 2; ++ref) {
    chosen[ref].assign(choices, 77);
    weight[ref].resize(choices);
    scores[ref].resize(size);
    d_logits[ref].assign(size, T(77));
    counts[ref].resize(experts);
    sums[ref].resize(experts);
    non_finite[ref].resize(1);
    z[ref].resize(1);
    const RouterForward<T> forward{.shape = s,
                                   .logits = logits.data(),
                                   .bias = bias.data(),
                                   .chosen = chosen[ref].data(),
                                   .weight = weight[ref].data(),
                                   .scores = with_sums ? scores[ref].data() : nullptr,
                                   .counts = counts[ref].data(),
                                   .score_sums = with_sums ? sums[ref].data() : nullptr,
                                   .z_sum = with_sums ? z[ref].data() : nullptr,
                                   .non_finite = non_finite[ref].data()};
    const RouterBackward<T> backward{.shape = s,
                                     .logits = logits.data(),
                                     .chosen = chosen[ref].data(),
                                     .d_weight = d_weight.data(),
                                     .d_scores = with_sums ? d_scores.data() : nullptr,
                                     .d_score_sums = with_sums ? d_sums.data() : nullptr,
                                     .d_z_sum = with_sums ? T(0.3) : T(0),
                                     .d_logits = d_logits[ref].data()};
    if (ref) {
      router_forward_ref(forward);
      router_backward_ref(backward);
      continue;
    }
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 5}, {5, s.tokens}}) {
      router_forward(forward, begin, end);
      router_backward(backward, begin, end);
    }
    // The same choices again, by other scores.
    auto others = logits;
    for (auto& value : others) value = -value;
    const auto again = chosen[0];
    auto repeated = forward;
    std::vector<T> weights[2] = {weight[0], weight[0]};
    std::vector<int32_t> more(experts), bad(1);
    repeated.logits = others.data();
    repeated.repeats = true;
    repeated.scores = repeated.score_sums = repeated.z_sum = nullptr;
    repeated.counts = more.data();
    repeated.non_finite = bad.data();
    repeated.weight = weights[0].data();
    router_forward(repeated, 0, s.tokens);
    repeated.weight = weights[1].data();
    router_forward_ref(repeated);
    EXPECT_EQ(chosen[0], again);
    EXPECT_EQ(more, counts[0]);
    expect_close(weights[0], weights[1]);
  }
  EXPECT_EQ(chosen[0], chosen[1]);
  EXPECT_EQ(counts[0], counts[1]);
  EXPECT_EQ(non_finite[0], non_finite[1]);
  expect_close(weight[0], weight[1]);
  expect_close(scores[0], scores[1]);
  expect_close(sums[0], sums[1]);
  expect_close(z[0], z[1]);
  expect_close(d_logits[0], d_logits[1]);
}

TEST(RouterKernel, equals_its_twin_also_where_logits_are_no_numbers) {
  RouterShape shapes[] = {
      {.tokens = 63, .num_experts = 1, .top_k = 1},
      {.tokens = 63, .num_experts = 7, .top_k = 2},
      {.tokens = 131, .num_experts = 33, .top_k = 5, .scale = 2.5},
      {.tokens = 67, .num_experts = 24, .top_k = 3, .num_groups = 4, .topk_groups = 2},
      {.tokens = 67, .num_experts = 24, .top_k = 7, .num_groups = 6, .topk_groups = 2, .group_top2 = false},
  };
  for (auto& shape : shapes) {
    for (int flags = 0; flags < 8; ++flags) {
      shape.sigmoid = flags & 1;
      shape.normalise = flags & 2;
      check_router<float>(shape, flags & 4, flags == 3 || flags == 4);
      check_router<double>(shape, flags & 4, flags != 3 && flags != 4);
    }
  }
}

}  // namespace
