// SPDX-License-Identifier: Apache-2.0
// Forward and backward of the expert layer with balanced, imposed routing:
//   conclave   expert_mlp + combine_rows
//   loop       index_select, linear, silu * up, linear, index_add, expert by expert, with ATen's autograd
//   grouped    the same with at::_grouped_mm
//   gemm       only the nine matrix products per expert (three forward, six backward), nothing else: the
//   limit
//   recorded   on a GPU: the first, recorded once and replayed (ops/graphed.h)
// First all must agree in outputs and gradients; then they take turns. Freed memory stays with the
// process, so that no contestant is timed for the kernel's clearing of pages.
// usage: bench_moe_layer [fp32|bf16] [turns] [shape] [cpu|cuda]
#include <malloc.h>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>

#include <ATen/Parallel.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/cuda/install.h"
#include "conclave/moe/layer.h"
#include "conclave/moe/routing_plan.h"
#include "conclave/ops/graphed.h"
#include "conclave/train/machine_options.h"

namespace {

using namespace conclave;

struct Shape {
  const char* name;
  int64_t tokens, width, expert_width, num_experts, top_k;
};

constexpr Shape kShapes[] = {{"quickstart", 2048, 256, 256, 8, 2},
                             {"mixtral-mini", 2048, 512, 1792, 8, 2},
                             {"gptoss-mini", 2048, 384, 384, 16, 4},
                             {"olmoe-mini", 2048, 512, 256, 32, 8},
                             {"qwen3-mini", 2048, 512, 192, 64, 8}};

// Of the models themselves, for GPUs.
constexpr Shape kGpuShapes[] = {{"olmoe", 8192, 2048, 1024, 64, 8},
                                {"qwen3-30b", 8192, 2048, 768, 128, 8},
                                {"gpt-oss-20b", 8192, 2880, 2880, 32, 4},
                                {"mixtral-8x7b", 4096, 4096, 14336, 8, 2}};

struct Case {
  Shape shape;
  at::Tensor x_TD, weight_N, w13_E2FD, w2_EDF, d_out_TD;
  moe::SparsePlan plan;

  Case(const Shape& s, at::ScalarType dtype, c10::Device device) : shape(s) {
    const auto leaf = [&](const at::Tensor& t) { return t.to(device).set_requires_grad(true); };
    const double scale = 1.0 / std::sqrt(static_cast<double>(s.width));
    x_TD = leaf(at::randn({s.tokens, s.width}).to(dtype));
    weight_N = leaf(at::rand({s.tokens * s.top_k}).add(0.1));
    w13_E2FD = leaf(at::randn({s.num_experts, 2 * s.expert_width, s.width}).mul(scale));
    w2_EDF = leaf(at::randn({s.num_experts, s.width, s.expert_width}).mul(scale));
    d_out_TD = at::randn({s.tokens, s.width}).to(dtype).to(device);
    const auto pair = at::arange(s.tokens * s.top_k, at::TensorOptions(at::kInt).device(device));
    const auto unit = pair.div(s.top_k, "floor").to(at::kInt);
    // Choice c of token t goes to expert (t + c * E / k) mod E: every expert gets the same number of rows.
    const auto choice = pair.sub(unit.mul(s.top_k)).to(at::kInt);
    const auto expert = unit.add(choice.mul(s.num_experts / s.top_k)).remainder(s.num_experts).to(at::kInt);
    plan = moe::make_sparse_plan(s.tokens, s.num_experts, unit, expert, choice, weight_N, {});
  }
  std::vector<at::Tensor> leaves() const { return {x_TD, weight_N, w13_E2FD, w2_EDF}; }
};

at::Tensor run_conclave(const Case& c) {
  const auto dispatcher = moe::make_local_dispatcher();
  const auto weights_A = c.weight_N.index_select(0, c.plan.pair_of_row_A);
  const auto layout = dispatcher->plan(c.plan);
  const auto d = dispatcher->dispatch(c.plan, *layout, c.x_TD, weights_A);
  return dispatcher->combine(c.plan, *layout, d, ops::expert_mlp(d.rows, d.weights_A, c.w13_E2FD, c.w2_EDF));
}

at::Tensor run_loop(const Case& c) {
  const auto dtype = c.x_TD.scalar_type();
  auto out_TD = at::zeros_like(c.x_TD);
  const auto unit_A = c.plan.unit_N.index_select(0, c.plan.pair_of_row_A);
  for (int64_t e = 0; e < c.shape.num_experts; ++e) {
    const int64_t count = c.shape.tokens * c.shape.top_k / c.shape.num_experts, first = e * count;
    const auto unit = unit_A.narrow(0, first, count);
    const auto h = at::linear(c.x_TD.index_select(0, unit), c.w13_E2FD[e].to(dtype));
    const auto act = at::silu(h.narrow(1, 0, c.shape.expert_width))
                         .mul(h.narrow(1, c.shape.expert_width, c.shape.expert_width));
    const auto weight = c.weight_N.index_select(0, c.plan.pair_of_row_A.narrow(0, first, count)).unsqueeze(1);
    out_TD = at::index_add(out_TD, 0, unit, at::linear(act, c.w2_EDF[e].to(dtype)).mul(weight).to(dtype));
  }
  return out_TD;
}

at::Tensor run_grouped(const Case& c) {
  const auto dtype = c.x_TD.scalar_type();
  const auto offsets = c.plan.expert_offsets_E1.narrow(0, 1, c.shape.num_experts);
  const auto unit_A = c.plan.unit_N.index_select(0, c.plan.pair_of_row_A);
  const auto h =
      at::_grouped_mm(c.x_TD.index_select(0, unit_A), c.w13_E2FD.to(dtype).transpose(1, 2), offsets);
  const auto act = at::silu(h.narrow(1, 0, c.shape.expert_width))
                       .mul(h.narrow(1, c.shape.expert_width, c.shape.expert_width));
  const auto y = at::_grouped_mm(act, c.w2_EDF.to(dtype).transpose(1, 2), offsets);
  const auto weight = c.weight_N.index_select(0, c.plan.pair_of_row_A).unsqueeze(1);
  return at::index_add(at::zeros_like(c.x_TD), 0, unit_A, y.mul(weight).to(dtype));
}

// The products alone, into buffers made beforehand. Every expert has its own operands, as in the layer, so
// that both read and write the same amount of memory.
std::function<void()> gemm_only(const Case& c) {
  const auto& s = c.shape;
  const int64_t rows = s.tokens * s.top_k / s.num_experts;
  const auto dtype = c.x_TD.scalar_type();
  const auto make = [&](int64_t a, int64_t b) {
    return at::randn({s.num_experts, a, b}, c.x_TD.options().requires_grad(false)).to(dtype);
  };
  const auto x = make(rows, s.width), act = make(rows, s.expert_width), d_y = make(rows, s.width),
             d_h = make(rows, 2 * s.expert_width);
  const auto h = at::empty_like(d_h), y = at::empty_like(d_y), d_act = at::empty_like(act),
             d_x = at::empty_like(x), w13 = c.w13_E2FD.detach().to(dtype), w2 = c.w2_EDF.detach().to(dtype),
             d_w13 = at::empty_like(w13), d_w2 = at::empty_like(w2);
  const auto product = [](at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
    at::mm_out(out, a, b);
  };
  return [=] {
    for (int64_t e = 0; e < s.num_experts; ++e) {
      product(h[e], x[e], w13[e].t());
      product(y[e], act[e], w2[e].t());
      product(d_act[e], d_y[e], w2[e]);
      product(d_w2[e], d_y[e].t(), act[e]);
      product(d_w13[e], d_h[e].t(), x[e]);
      product(d_x[e], d_h[e], w13[e]);
    }
  };
}

using Run = std::function<at::Tensor(const Case&)>;

Run recorded(const Case& c) {
  const auto function = [&c](const std::vector<at::Tensor>& inputs) {
    auto inner = c;
    inner.x_TD = inputs[0];
    inner.weight_N = inputs[1];
    return std::vector<at::Tensor>{run_conclave(inner)};
  };
  const auto graphed = std::make_shared<ops::Graphed>(function, std::vector<at::Tensor>{c.x_TD, c.weight_N},
                                                      std::vector<at::Tensor>{c.w13_E2FD, c.w2_EDF});
  return [graphed](const Case& inner) { return (*graphed)({inner.x_TD, inner.weight_N})[0]; };
}

std::vector<at::Tensor> results(const Case& c, const Run& run) {
  for (auto leaf : c.leaves()) leaf.mutable_grad() = at::Tensor();
  const auto out = run(c);
  out.backward(c.d_out_TD);
  std::vector<at::Tensor> all = {out.detach().to(at::kFloat)};
  for (const auto& leaf : c.leaves()) all.push_back(leaf.grad().to(at::kFloat).clone());
  return all;
}

void check(const Case& c, const Run& run, const char* name, double tolerance) {
  const auto want = results(c, run_loop), got = results(c, run);
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = got[i].sub(want[i]).norm().item<double>() / want[i].norm().item<double>();
    CONCLAVE_CHECK(error <= tolerance, fmt::format("{}: {} differs from the loop in result {} by {:.2e}",
                                                   c.shape.name, name, i, error));
  }
}

double time_ms(const std::function<void()>& body, c10::Device device) {
  const auto* work = c10::impl::getDeviceGuardImpl(device.type());
  if (!device.is_cpu()) work->synchronizeDevice(device.index());
  const auto begin = std::chrono::steady_clock::now();
  body();
  if (!device.is_cpu()) work->synchronizeDevice(device.index());
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void bench(const Shape& shape, at::ScalarType dtype, int turns, c10::Device device) {
  const Case c(shape, dtype, device);
  const double tolerance = dtype == at::kFloat ? 2e-5 : 2e-2;
  check(c, run_conclave, "conclave", tolerance);
  check(c, run_grouped, "grouped", tolerance);
  const auto train = [&c](const Run& run) {
    return [&c, run] {
      for (auto leaf : c.leaves()) leaf.mutable_grad() = at::Tensor();
      run(c).backward(c.d_out_TD);
    };
  };
  std::vector<std::function<void()>> bodies = {train(run_conclave), train(run_loop), train(run_grouped),
                                               gemm_only(c)};
  if (!device.is_cpu()) {
    const auto replayed = recorded(c);
    check(c, replayed, "recorded", tolerance);
    bodies.push_back(train(replayed));
  }
  std::vector<std::vector<double>> ms(bodies.size());
  for (int turn = 0; turn <= turns; ++turn) {
    for (size_t i = 0; i < bodies.size(); ++i) {
      const double t = time_ms(bodies[i], device);
      if (turn > 0) ms[i].push_back(t);
    }
  }
  std::vector<std::vector<double>> ratio(bodies.size());
  for (size_t i = 0; i < bodies.size(); ++i) {
    for (size_t t = 0; t < ms[0].size(); ++t) ratio[i].push_back(ms[i][t] / ms[0][t]);
  }
  const double flops =
      18.0 * static_cast<double>(shape.tokens * shape.top_k * shape.width * shape.expert_width);
  fmt::print(
      "{:12} {:8.2f} ms {:7.1f} GFLOP/s | gemm alone {:.2f} of it | loop {:.2f}x | grouped {:.2f}x{}\n",
      shape.name, median(ms[0]), flops / median(ms[0]) / 1e6, median(ratio[3]), median(ratio[1]),
      median(ratio[2]), device.is_cpu() ? "" : fmt::format(" | recorded {:.2f}x", median(ratio[4])));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string precision = argc > 1 ? argv[1] : "fp32";
    if (precision != "fp32" && precision != "bf16")
      throw Error("usage: bench_moe_layer [fp32|bf16] [turns] [shape] [cpu|cuda]");
    const int turns = argc > 2 ? std::atoi(argv[2]) : 15;
    const std::string only = argc > 3 ? argv[3] : "";
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
    fmt::print("forward + backward, {}, {} threads, medians of {} interleaved turns\n", precision,
               at::get_num_threads(), turns);
    cuda::offer();
    const bool gpu = argc > 4 && std::string(argv[4]) == "cuda";
    const auto device = train::open_device(gpu ? train::Device::kCuda : train::Device::kCpu);
    for (const auto& shape : gpu ? std::span<const Shape>(kGpuShapes) : std::span<const Shape>(kShapes)) {
      if (only.empty() || only == shape.name)
        bench(shape, precision == "bf16" ? at::kBFloat16 : at::kFloat, turns, device);
    }
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
