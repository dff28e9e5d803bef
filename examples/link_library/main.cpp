// SPDX-License-Identifier: Apache-2.0
// A plain LibTorch program with one of our MoE layers inside its own model: predicts the next byte of a text
// from the eight bytes before it.   usage: link_library TEXT_FILE [steps] [seed]
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/optim/adamw.h>
#include <torch/serialize.h>

#include "conclave/moe/make.h"
#include "conclave/moe/routers/topk.h"
#include "conclave/moe/stats.h"

namespace moe = conclave::moe;

constexpr int64_t kHistory = 8, kWidth = 48, kExperts = 6, kBatch = 256;

struct NextByte : torch::nn::Module {
  explicit NextByte(uint64_t seed) {
    embedding = register_module("embedding", torch::nn::Embedding(256, kWidth));
    mix = register_module("mix", torch::nn::Linear(kHistory * kWidth, kWidth));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})));
    experts = register_module(
        "experts", moe::make_moe_layer(
                       {.width = kWidth, .num_experts = kExperts, .expert_width = 80},
                       [](const auto& shape) { return moe::make_topk_router({.top_k = 2}, shape); }, seed));
    head = register_module("head", torch::nn::Linear(kWidth, 256));
  }
  // bytes [B, kHistory] -> logits [B, 256]
  at::Tensor forward(const at::Tensor& bytes, moe::ForwardContext& context) {
    const auto x = mix->forward(embedding->forward(bytes).flatten(1));
    return head->forward(x.add(experts->run(norm->forward(x), context)));
  }
  torch::nn::Embedding embedding{nullptr};
  torch::nn::Linear mix{nullptr}, head{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  std::shared_ptr<moe::MoeLayer> experts;
};

at::Tensor read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (static_cast<int64_t>(text.size()) <= kHistory)
    throw std::runtime_error("cannot read a text from " + path);
  std::vector<int64_t> bytes;
  for (const unsigned char byte : text) bytes.push_back(byte);
  return at::tensor(bytes, at::kLong);
}

// Trains in place and returns the losses of the first and the last step.
std::pair<double, double> train(NextByte& model, const at::Tensor& text, int64_t steps, at::Generator draws) {
  const auto windows = text.unfold(0, kHistory + 1, 1);
  const auto balance = moe::make_load_balancing_loss({.weight = 0.01});
  torch::optim::AdamW optimizer(model.parameters(), torch::optim::AdamWOptions(3e-3).weight_decay(0.01));
  moe::CountSums counts;
  double first = 0, last = 0;
  for (int64_t step = 0; step < steps; ++step) {
    const auto batch = windows.index_select(0, at::randint(windows.size(0), {kBatch}, draws, at::kLong));
    auto context = moe::ForwardContext::plain(kBatch);
    context.step = step;
    const auto logits = model.forward(batch.narrow(1, 0, kHistory), context);
    const auto loss = at::cross_entropy_loss(logits, batch.select(1, kHistory));
    const auto& trace = context.traces.front();  // what the layer's router did
    const auto auxiliary = balance->share(trace, {.num_tokens = kBatch});
    optimizer.zero_grad();
    loss.add(auxiliary.mul(balance->weight(step))).backward();
    optimizer.step();
    counts.add(trace.plan);
    last = loss.item<double>();
    if (step == 0) first = last;
    if (step % 50 == 0 || step + 1 == steps)
      std::printf("step %3d  loss %.4f  balance %.4f\n", static_cast<int>(step), last,
                  auxiliary.item<double>());
  }
  const auto loads = counts.to_host().requested;
  std::printf("expert loads:");
  for (const int64_t count : loads) std::printf(" %lld", static_cast<long long>(count));
  std::printf("  (max / mean %.2f)\n", moe::load_max_over_mean(loads));
  return {first, last};
}

// Saves the model, loads it into one with other initial values, and compares their logits bit for bit.
bool survives_saving(const std::shared_ptr<NextByte>& model, const at::Tensor& text, uint64_t seed) {
  const std::string path = "link_library.pt";
  torch::save(model, path);
  auto loaded = std::make_shared<NextByte>(seed + 1);
  torch::load(loaded, path);
  std::remove(path.c_str());
  const c10::InferenceMode no_grad;
  const auto some = text.unfold(0, kHistory, 1).narrow(0, 0, 64);
  auto a = moe::ForwardContext::plain(64, moe::Phase::kEval), b = a;
  return model->forward(some, a).equal(loaded->forward(some, b));
}

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s TEXT_FILE [steps] [seed]\n", argv[0]);
    return 2;
  }
  const int64_t steps = argc > 2 ? std::stoll(argv[2]) : 200;
  const uint64_t seed = argc > 3 ? std::stoull(argv[3]) : 1;
  at::manual_seed(seed);  // torch's own modules draw from its global generator; ours take the seed
  const auto text = read_bytes(argv[1]);
  auto model = std::make_shared<NextByte>(seed);
  const auto [first, last] = train(*model, text, steps, at::make_generator<at::CPUGeneratorImpl>(seed));
  std::printf("loss %.4f -> %.4f\n", first, last);
  const bool equal = survives_saving(model, text, seed);
  std::printf("saved and loaded: %s\n", equal ? "equal" : "DIFFERENT");
  return equal && last < first ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "link_library: %s\n", error.what());
  return 1;
}
