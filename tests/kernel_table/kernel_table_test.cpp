// SPDX-License-Identifier: Apache-2.0
// The functions of `ops` on the CUDA kernels, which the emulator runs over CPU tensors, against the same
// functions on the CPU's: what is between tensors and kernels is the same code as on a GPU.
#include "conclave/ops/kernel_table.h"

#include <ATen/Context.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/cuda/kernels.h"
#include "conclave/moe/make.h"
#include "conclave/moe/routers/topk.h"
#include "conclave/ops/expert_mlp.h"

namespace conclave::ops {
namespace {

// The CUDA kernels stand in for those of the CPU while it lives.
class OnEmulator {
 public:
  explicit OnEmulator(const std::function<void(KernelTable&)>& change = {}) {
    auto table =
        cuda::make_kernels([] { return static_cast<CUstream_st*>(nullptr); }, {.grouped_bf16 = true});
    if (change) change(table);
    cpu_ = install_kernels(c10::DeviceType::CPU, std::move(table));
  }
  ~OnEmulator() { install_kernels(c10::DeviceType::CPU, cpu_); }

 private:
  KernelTable cpu_;
};

using Tensors = std::vector<at::Tensor>;

double tolerance_of(c10::ScalarType type) {
  return type == at::kDouble ? 1e-9 : type == at::kFloat ? 2e-5 : 2e-2;
}

// What `compute` returns on either table.
void expect_same(const std::function<Tensors()>& compute) {
  const auto want = compute();
  Tensors got;
  {
    const OnEmulator emulator;
    got = compute();
  }
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_EQ(got[i].sizes(), want[i].sizes());
    ASSERT_EQ(got[i].scalar_type(), want[i].scalar_type());
    if (!want[i].is_floating_point()) {
      EXPECT_TRUE(at::equal(got[i], want[i]));
      continue;
    }
    if (want[i].numel() == 0) continue;
    const auto a = got[i].detach().to(at::kDouble), b = want[i].detach().to(at::kDouble);
    EXPECT_LE((a - b).abs().max().item<double>(),
              tolerance_of(want[i].scalar_type()) * std::max(1e-3, b.abs().max().item<double>()));
  }
}

const std::vector<c10::ScalarType> kTypes = {at::kFloat, at::kDouble, at::kBFloat16};

TEST(KernelTableLaw, both_devices_have_every_entry) {
  const auto cpu = install_kernels(c10::DeviceType::CPU, {});
  install_kernels(c10::DeviceType::CPU, cpu);
  const auto gpu =
      cuda::make_kernels([] { return static_cast<CUstream_st*>(nullptr); },
                         {.grouped_bf16 = true, .graphs = [] { return std::unique_ptr<DeviceGraphs>(); }});
  for (const auto& table : {cpu, gpu}) {
    for_each_entry(table, [](const char* name, const auto& kernel) { EXPECT_TRUE(bool(kernel)) << name; });
  }
}

TEST(KernelTableLaw, a_device_without_kernels_is_named) {
  try {
    kernels_of(at::zeros({2}, at::TensorOptions().device(at::kMeta)), "swiglu");
    ADD_FAILURE() << "there are some";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("swiglu: there are no kernels for meta"), std::string::npos)
        << error.what();
  }
}

TEST(KernelTableLaw, a_wrong_kernel_shows) {
  const auto h = at::ones({3, 8});
  EXPECT_GT(swiglu(h).sum().item<double>(), 1);
  const OnEmulator wrong([](KernelTable& table) {
    table.swiglu_forward = [](const at::Tensor&, const at::Tensor&, const at::Tensor& act) { act.zero_(); };
  });
  EXPECT_EQ(swiglu(h).sum().item<double>(), 0);
}

TEST(KernelTableLaw, norm_rotation_and_swiglu_with_their_gradients) {
  for (const auto type : kTypes) {
    const auto wide = type == at::kDouble ? at::kDouble : at::kFloat;
    for (const int64_t rows : {0, 1, 37}) {
      SCOPED_TRACE(testing::Message() << type << " " << rows);
      expect_same([&] {
        at::manual_seed(1);
        const auto x = at::randn({rows, 24}).to(type).requires_grad_(),
                   weight = at::randn({24}).to(wide).requires_grad_(), d = at::randn({rows, 24}).to(type);
        const auto out = rms_norm(x, weight, 1e-6);
        out.backward(d);
        const auto h = at::randn({rows, 34}).to(type).requires_grad_();
        const auto act = swiglu(h);
        act.backward(at::randn({rows, 17}).to(type));
        const auto q = at::randn({1, 3, rows, 10}).to(type).requires_grad_();
        const auto angle = at::randn({1, 1, rows, 5}).to(wide);
        const auto turned = rope(q, angle.cos(), angle.sin());
        turned.backward(at::randn(turned.sizes()).to(type));
        return Tensors{out, x.grad(), weight.grad(), act, h.grad(), turned, q.grad()};
      });
    }
  }
}

TEST(KernelTableLaw, choices_and_the_order_of_experts) {
  for (const int64_t experts : {5, 33, 1100}) {
    for (const auto type : {at::kFloat, at::kDouble}) {
      for (const int64_t k : {1, 5}) {
        SCOPED_TRACE(testing::Message() << experts << " " << type << " " << k);
        expect_same([&] {
          at::manual_seed(2);
          auto scores = at::randint(-2, 3, {41, experts}).to(type);
          scores.masked_fill_(at::rand(scores.sizes()).lt(0.2), NAN);
          scores.masked_fill_(at::rand(scores.sizes()).lt(0.2), -INFINITY);
          scores[7].fill_(NAN);
          scores[8].fill_(NAN)[3] = -INFINITY;
          const auto chosen = select_top_k(scores, k);
          const auto expert = at::randint(-1, experts, {301}, at::kInt);  // some pairs are none
          Tensors out = {chosen};
          for (const auto& kept : {at::Tensor(), at::rand({301}).lt(0.8).to(at::kByte)}) {
            const auto sorted = sort_pairs_by_expert(expert, kept, experts);
            const auto rows = sorted.expert_offsets_E1[experts].item<int64_t>(),
                       all = sorted.pair_of_row_A.size(0);
            EXPECT_TRUE(sorted.pair_of_row_A.narrow(0, rows, all - rows).eq(-1).all().item<bool>());
            out.push_back(sorted.pair_of_row_A.narrow(0, 0, rows));
            out.push_back(sorted.row_of_pair_N);
            out.push_back(sorted.expert_offsets_E1);
          }
          return out;
        });
      }
    }
  }
}

TEST(KernelTableLaw, one_step_of_adamw) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    expect_same([&] {
      at::manual_seed(3);
      const auto p = at::randn({7, 31}).to(type), g = at::randn({7, 31}).to(type),
                 m = at::randn({7, 31}).to(type), v = at::rand({7, 31}).to(type);
      adamw_(p, g, m, v, {.lr = 0.01, .weight_decay = 0.1, .step = 3, .grad_scale = 0.5});
      return Tensors{p, m, v};
    });
  }
}

TEST(KernelTableLaw, parameters_in_bf16_are_refused) {
  const OnEmulator emulator;
  const auto p = at::ones({4}, at::kBFloat16);
  EXPECT_THROW(adamw_(p, p.clone(), p.clone(), p.clone(), {.lr = 0.01, .step = 1}), Error);
}

// A whole layer: routing, rows to experts and back, the experts, and every gradient.
TEST(KernelTableLaw, a_mixture_of_experts_layer) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    expect_same([&] {
      const auto layer = moe::make_moe_layer(
          {.width = 24, .num_experts = 6, .expert_width = 18, .dtype = type},
          [](const auto& shape) {
            return moe::make_topk_router({.top_k = 2, .capacity = {.factor = 0.9}}, shape);
          },
          /*seed=*/1);
      at::manual_seed(4);
      const auto x = at::randn({5, 13, 24}).to(type).requires_grad_();
      const auto y = layer->forward(x);
      y.backward(at::randn(y.sizes()).to(type));
      Tensors all = {y, x.grad()};
      for (const auto& parameter : layer->parameters()) all.push_back(parameter.grad());
      return all;
    });
  }
}

}  // namespace
}  // namespace conclave::ops
