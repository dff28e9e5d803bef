// SPDX-License-Identifier: Apache-2.0
// Kernels of the layers around the experts: SwiGLU, RMSNorm, rotation, AdamW.
#include <cmath>

#include "adamw.h"
#include "device_array.h"
#include "norm.h"
#include "rope.h"
#include "swiglu.h"

namespace conclave::kernels {
namespace {

struct Shape {
  int64_t rows, width;
  size_t shift = 0;
};
const std::vector<Shape> kShapes = {{0, 8},   {1, 1},     {32, 24}, {5, 2880},   {257, 37},
                                    {3, 301}, {1009, 40}, {9, 768}, {11, 512, 1}};

template <class H, class A>
void check_swiglu() {
  for (const auto& [rows, width, shift] : kShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << width << " + " << shift);
    const auto size = static_cast<size_t>(rows * width);
    const auto h = random_values<H>(2 * size, 1, 4.0);
    const auto d = random_values<A>(size, 2);
    auto scale = random_values<wide_t<A>>(static_cast<size_t>(rows), 3);
    if (rows > 1) scale[1] = 0;  // its gradient is not zero
    const DeviceArray<H> h_d(h, shift);
    const DeviceArray<A> d_d(d, shift), act_d(size, 0xff, shift), d_h_d(2 * size, 0xff, shift),
        scaled_d(size, 0xff, shift);
    const DeviceArray<wide_t<A>> scale_d(scale), d_scale_d(scale.size());
    std::vector<A> act(size), d_h(2 * size), scaled(size);
    std::vector<wide_t<A>> d_scale(scale.size());
    for (const bool with_scale : {true, false}) {
      expect_ok(cuda::swiglu_forward<H, A>(h_d.data(), with_scale ? scale_d.data() : nullptr, act_d.data(),
                                           width, rows, nullptr));
      swiglu_forward_ref<H, A>(h.data(), with_scale ? scale.data() : nullptr, act.data(), width, 0, rows);
      expect_close(act_d.host(), act);
      expect_ok(cuda::swiglu_backward<H, A>(h_d.data(), d_d.data(), with_scale ? scale_d.data() : nullptr,
                                            d_h_d.data(), scaled_d.data(),
                                            with_scale ? d_scale_d.data() : nullptr, width, rows, nullptr));
      swiglu_backward_ref<H, A>(h.data(), d.data(), with_scale ? scale.data() : nullptr, d_h.data(),
                                scaled.data(), with_scale ? d_scale.data() : nullptr, width, 0, rows);
      expect_close(d_h_d.host(), d_h);
      expect_close(scaled_d.host(), scaled);
    }
    expect_close(d_scale_d.host(), d_scale);
  }
}

class SwiGluTest : public DeviceTest {};
TEST_F(SwiGluTest, forward_and_the_three_gradients_in_every_pair_of_types) {
  check_swiglu<float, float>();
  check_swiglu<double, double>();
  check_swiglu<bfloat16, bfloat16>();
  check_swiglu<bfloat16, float>();
}

template <class T>
class NormTest : public DeviceTest {};
TYPED_TEST_SUITE(NormTest, Storage);

TYPED_TEST(NormTest, forward_and_gradients_which_add_to_those_of_the_weight) {
  using T = TypeParam;
  using W = wide_t<T>;
  for (const auto& [rows, width, shift] : kShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << width << " + " << shift);
    const auto size = static_cast<size_t>(rows * width), columns = static_cast<size_t>(width);
    const auto x = random_values<T>(size, 1), d = random_values<T>(size, 2);
    const auto weight = random_values<W>(columns, 3);
    auto d_weight = random_values<W>(columns, 4);
    const DeviceArray<T> x_d(x, shift), d_d(d, shift), out_d(size, 0xff, shift), d_x_d(size, 0xff, shift);
    const DeviceArray<W> weight_d(weight), d_weight_d(d_weight), inv_d(static_cast<size_t>(rows)),
        partials_d(static_cast<size_t>(cuda::rms_norm_partials(rows) * width));
    std::vector<T> out(size), d_x(size);
    std::vector<W> inv(static_cast<size_t>(rows));
    expect_ok(cuda::rms_norm_forward<T>(x_d.data(), weight_d.data(), 1e-6, out_d.data(), inv_d.data(), width,
                                        rows, nullptr));
    rms_norm_forward_ref<T>(x.data(), weight.data(), 1e-6, out.data(), inv.data(), width, 0, rows);
    expect_close(out_d.host(), out);
    expect_close(inv_d.host(), inv);
    expect_ok(cuda::rms_norm_backward<T>(x_d.data(), weight_d.data(), inv_d.data(), d_d.data(), d_x_d.data(),
                                         d_weight_d.data(), partials_d.data(), width, rows, nullptr));
    rms_norm_backward_ref<T>(x.data(), weight.data(), inv.data(), d.data(), d_x.data(), d_weight.data(),
                             width, 0, rows);
    expect_close(d_x_d.host(), d_x);
    expect_close(d_weight_d.host(), d_weight);
  }
}

TYPED_TEST(NormTest, a_row_that_does_not_fit_is_refused) {
  using T = TypeParam;
  EXPECT_EQ(cuda::rms_norm_backward<T>(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                       cuda::kMaxNormWidth + 1, 1, nullptr),
            cuda::Status::kInvalid);
}

template <class T>
class RopeTest : public DeviceTest {};
TYPED_TEST_SUITE(RopeTest, Storage);

TYPED_TEST(RopeTest, turns_as_its_twin_and_back_in_place) {
  using T = TypeParam;
  using W = wide_t<T>;
  for (const int64_t tokens : {0, 1, 53}) {
    constexpr int64_t kHeads = 3, kHalf = 17;
    const auto x = random_values<T>(static_cast<size_t>(tokens * kHeads * 2 * kHalf), 1);
    std::vector<W> cosine, sine;
    for (int64_t i = 0; i < tokens * kHalf; ++i) {
      cosine.push_back(static_cast<W>(std::cos(0.3 * static_cast<double>(i))));
      sine.push_back(static_cast<W>(std::sin(0.3 * static_cast<double>(i))));
    }
    const DeviceArray<T> x_d(x);
    const DeviceArray<W> cosine_d(cosine), sine_d(sine);
    auto turned = x;
    expect_ok(cuda::rope<T>(x_d.data(), cosine_d.data(), sine_d.data(), x_d.data(), kHeads, kHalf, 1, tokens,
                            nullptr));
    rope_ref<T>(x.data(), cosine.data(), sine.data(), turned.data(), kHeads, kHalf, 1, 0, tokens);
    expect_close(x_d.host(), turned);
    expect_ok(cuda::rope<T>(x_d.data(), cosine_d.data(), sine_d.data(), x_d.data(), kHeads, kHalf, -1, tokens,
                            nullptr));
    expect_close(x_d.host(), x);
  }
}

template <class T, class G>
void check_adamw() {
  for (const size_t count : {0, 1, 257, 1009, 4096}) {
    for (const bool with_copy : {false, true}) {
      auto p = random_values<T>(count, 1), m = random_values<T>(count, 2), v = random_values<T>(count, 3);
      for (auto& value : v) value = value * value;
      const auto g = random_values<G>(count, 4);
      const AdamWStep step{.lr = 0.03,
                           .beta1 = 0.8,
                           .beta2 = 0.95,
                           .weight_decay = 0.1,
                           .bias_correction1 = 0.6,
                           .bias_correction2 = 0.2,
                           .grad_scale = 0.7};
      const DeviceArray<T> p_d(p), m_d(m), v_d(v);
      const DeviceArray<G> g_d(g);
      const DeviceArray<bfloat16> copy_d(count);
      std::vector<bfloat16> copy(count);
      expect_ok(cuda::adamw<T, G>(p_d.data(), g_d.data(), m_d.data(), v_d.data(),
                                  with_copy ? copy_d.data() : nullptr, step, static_cast<int64_t>(count),
                                  nullptr));
      adamw_ref<T, G>(p.data(), g.data(), m.data(), v.data(), copy.data(), step, 0,
                      static_cast<int64_t>(count));
      expect_close(p_d.host(), p);
      expect_close(m_d.host(), m);
      expect_close(v_d.host(), v);
      if (with_copy) expect_close(copy_d.host(), copy);
    }
  }
}

class AdamWTest : public DeviceTest {};
TEST_F(AdamWTest, one_step_in_every_pair_of_types_with_and_without_a_rounded_copy) {
  check_adamw<float, float>();
  check_adamw<float, bfloat16>();
  check_adamw<double, double>();
}

}  // namespace
}  // namespace conclave::kernels
