// SPDX-License-Identifier: Apache-2.0
// CUDA kernels at the shapes of real layers, beside a copy of the same number of bytes in the same run. Each
// kernel's result is checked first. Prints a table; needs a GPU.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "permute.h"
#include "router.h"
#include "routing.h"
#include "swiglu.h"

namespace {

using namespace conclave::kernels;

void check(int status, const char* what) {
  if (status == 0) return;
  std::fprintf(stderr, "bench_kernels: %s failed: %s\n", what,
               cudaGetErrorString(static_cast<cudaError_t>(status)));
  std::exit(1);
}
void check(cuda::Status status, const char* what) {
  check(static_cast<int>(status), what);
}
void require(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "bench_kernels: %s gives a wrong result; nothing is timed\n", what);
  std::exit(1);
}

template <class T>
struct Device {
  T* data = nullptr;
  size_t count;
  explicit Device(size_t n) : count(n) {
    check(cudaMalloc(reinterpret_cast<void**>(&data), n * sizeof(T)), "cudaMalloc");
  }
  explicit Device(const std::vector<T>& values) : Device(values.size()) {
    check(cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> values(count);
    check(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }
};

template <class T>
std::vector<T> random_values(size_t count) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<T> some(1 << 20), values(count);  // repeated: drawing all of them would take minutes
  for (auto& v : some) store(v, normal(engine));
  for (size_t i = 0; i < count; ++i) values[i] = some[i % some.size()];
  return values;
}

// Median microseconds of one call.
double time_of(const std::function<void()>& call) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  for (int i = 0; i < 70; ++i) {
    check(cudaEventRecord(begin), "cudaEventRecord");
    call();
    check(cudaEventRecord(end), "cudaEventRecord");
    check(cudaEventSynchronize(end), "a kernel");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (i >= 20) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + 25, times.end());
  return times[25] * 1000.0;
}

// A line of the table: bytes that have to move, time, and the share of what a copy of as many bytes reaches.
void report(const char* name, double bytes, const std::function<void()>& call) {
  const auto half = static_cast<size_t>(bytes / 2);
  Device<char> from(half), to(half);
  const double copy = time_of([&] {
    check(cudaMemcpyAsync(to.data, from.data, half, cudaMemcpyDeviceToDevice, nullptr), "cudaMemcpyAsync");
  });
  const double time = time_of(call);
  std::printf("| %-22s | %9.1f | %8.1f | %8.0f | %5.0f %% |\n", name, bytes / 1e6, time, bytes / time / 1e3,
              100.0 * copy / time);
}

void bench(const char* model, int64_t tokens, int64_t width, int64_t inner, int64_t experts, int64_t k) {
  const int64_t pairs = tokens * k;
  std::printf("\n%s: T = %ld, d = %ld, n = %ld, E = %ld, k = %ld, bf16\n\n", model, tokens, width, inner,
              experts, k);
  std::printf(
      "| kernel                 | MB to move |       us |     GB/s | of a copy |\n| --- | --- | --- | --- | "
      "--- |\n");
  const auto n = [](int64_t count) { return static_cast<size_t>(count); };
  const auto logits = random_values<float>(n(tokens * experts));
  const Device<float> logits_d(logits), weight_d(n(pairs)), sums_d(n(experts)), z_d(1);
  const Device<int32_t> chosen_d(n(pairs)), counts_d(n(experts)), bad_d(1), offsets_d(n(experts + 1)),
      pair_d(n(pairs)), unit_d(n(pairs)), row_d(n(pairs)),
      block_counts_d(n(cuda::sort_pairs_counts(pairs, experts)));
  const RouterShape shape{.tokens = tokens, .num_experts = experts, .top_k = k};
  const Device<char> scratch(n(cuda::router_scratch_bytes(shape)));
  const RouterForward<float> router{.shape = shape,
                                    .logits = logits_d.data,
                                    .chosen = chosen_d.data,
                                    .weight = weight_d.data,
                                    .counts = counts_d.data,
                                    .score_sums = sums_d.data,
                                    .z_sum = z_d.data,
                                    .non_finite = bad_d.data};
  const auto route = [&] { check(cuda::router_forward(router, scratch.data, nullptr), "router_forward"); };
  route();
  const auto chosen = chosen_d.host();
  std::vector<int32_t> counts(n(experts), 0);
  for (const auto e : chosen) ++counts[n(e)];
  require(counts_d.host() == counts, "router_forward");

  const PairSort sort{.expert = chosen_d.data,
                      .n = pairs,
                      .num_experts = experts,
                      .pairs_per_unit = k,
                      .offsets = offsets_d.data,
                      .pair_of_row = pair_d.data,
                      .unit_of_row = unit_d.data,
                      .row_of_pair = row_d.data};
  const auto sorting = [&] { check(cuda::sort_pairs(sort, block_counts_d.data, nullptr), "sort_pairs"); };
  sorting();
  const auto rows = row_d.host(), pair_of = pair_d.host();
  for (int64_t j = 0; j < pairs; ++j) require(pair_of[n(rows[n(j)])] == j, "sort_pairs");

  std::vector<int32_t> unit_offsets(n(tokens + 1));
  for (int64_t t = 0; t <= tokens; ++t) unit_offsets[n(t)] = static_cast<int32_t>(t * k);
  const Device<int32_t> unit_offsets_d(unit_offsets);
  const auto x = random_values<bfloat16>(n(tokens * width));
  const Device<bfloat16> x_d(x), rows_d(n(pairs * width)), out_d(n(tokens * width));
  const auto permute = [&] {
    check(cuda::permute_rows<bfloat16>(x_d.data, unit_offsets_d.data, row_d.data, rows_d.data, width, tokens,
                                       nullptr),
          "permute_rows");
  };
  const auto combine = [&] {
    check(cuda::sum_rows<bfloat16, bfloat16>(rows_d.data, unit_offsets_d.data, row_d.data, weight_d.data,
                                             out_d.data, width, tokens, nullptr),
          "sum_rows");
  };
  permute();
  combine();
  // The weights of a token sum to one, so its own row comes back.
  const auto out = out_d.host();
  for (size_t i = 0; i < out.size(); i += 977)
    require(std::abs(load(out[i]) - load(x[i])) < 0.05, "permute, combine");

  const double row = 2.0 * static_cast<double>(width), units = static_cast<double>(tokens),
               all = static_cast<double>(pairs), act = 2.0 * all * static_cast<double>(inner);
  report("router_forward", 4.0 * units * static_cast<double>(experts) + 8 * all, route);
  report("sort_pairs", 12 * all, sorting);
  report("permute_rows", (units + all) * row, permute);
  report("sum_rows, weighted", (units + all) * row, combine);

  const Device<bfloat16> h_d(random_values<bfloat16>(n(2 * pairs * inner))), act_d(n(pairs * inner)),
      d_act_d(random_values<bfloat16>(n(pairs * inner))), d_h_d(n(2 * pairs * inner));
  const Device<float> d_scale_d(n(pairs));
  report("swiglu_forward", 3 * act, [&] {
    check(
        cuda::swiglu_forward<bfloat16, bfloat16>(h_d.data, weight_d.data, act_d.data, inner, pairs, nullptr),
        "swiglu_forward");
  });
  report("swiglu_backward", 6 * act, [&] {
    check(cuda::swiglu_backward<bfloat16, bfloat16>(h_d.data, d_act_d.data, weight_d.data, d_h_d.data,
                                                    act_d.data, d_scale_d.data, inner, pairs, nullptr),
          "swiglu_backward");
  });
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "bench_kernels: there is no GPU\n");
    return 77;
  }
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  std::printf("%s\n", device.name);
  bench("Qwen3-30B-A3B", 32768, 2048, 768, 128, 8);
  bench("OLMoE-1B-7B", 32768, 2048, 1024, 64, 8);
  bench("gpt-oss-20b", 16384, 2880, 2880, 32, 4);
  return 0;
}
