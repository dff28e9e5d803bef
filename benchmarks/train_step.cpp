// SPDX-License-Identifier: Apache-2.0
// Times optimizer steps of a configuration. For a peer to check itself against, the folder receives the
// initial weights, the first batches, and the gradients of batch 0. Then each line "N" on stdin runs N steps
// and answers
// {"ms": [...]}; end of input ends the program. benchmarks/train_step.py drives it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "conclave/core/error.h"
#include "conclave/core/log.h"
#include "conclave/data/batch_stream.h"
#include "conclave/model/language_model.h"
#include "conclave/optim/gradients.h"
#include "conclave/optim/optimizer.h"
#include "conclave/train/model_state.h"
#include "conclave/train/run_config.h"
#include "conclave/train/safetensors.h"

namespace {

using namespace conclave;

constexpr int kNumBatches = 8;

class StepBench {
 public:
  StepBench(const train::RunConfig& config, const moe::Registry& registry) : config_(config) {
    const auto dataset = data::open_dataset(config.data, data::make_tokenizer(config.tokenizer), Log());
    data::BatchStream stream(dataset, {.seed = 1, .micro_batch_size = config.training.micro_batch_size});
    for (int i = 0; i < kNumBatches; ++i) batches_.push_back(stream.next());
    model_ = std::make_unique<model::LanguageModel>(config.model, dataset.tokenizer->vocab_size(), registry,
                                                    1, train::parameter_dtype(config.training.precision),
                                                    train::activation_dtype(config.training.precision));
    parameters_ = nn::tagged_parameters(*model_);
    optimizer_ = std::make_unique<optim::AdamW>(parameters_, config.optimizer);
    if (!config.model.moe) return;
    for (const auto& loss : config.model.moe->aux_losses) {
      aux_losses_.push_back(registry.aux_losses.at(loss.type).make(loss.options));
    }
  }

  double forward_backward(const data::Batch& batch) {
    moe::ForwardContext context;
    const auto loss = model_->loss(batch, context);
    auto objective = loss.sum.div(static_cast<double>(batch.num_targets));
    const moe::StepTotals totals{.num_tokens = batch.num_tokens,
                                 .num_targets = batch.num_targets,
                                 .num_micro_batches = 1,
                                 .num_sequences = batch.num_sequences};
    for (const auto& trace : context.traces) {
      for (const auto& aux : aux_losses_)
        objective = objective.add(aux->share(trace, totals), aux->weight(0));
    }
    objective.backward();
    return objective.item<double>();
  }

  double step_ms() {
    const auto begin = std::chrono::steady_clock::now();
    forward_backward(batches_[static_cast<size_t>(next_++ % kNumBatches)]);
    const double norm = optim::Gradients(parameters_).norm();
    const double limit = config_.training.clip_grad.value_or(norm);
    optimizer_->step(config_.optimizer.lr.at(0), norm > limit ? limit / norm : 1.0);
    optimizer_->zero_grad();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  }

  void write_weights(const std::filesystem::path& file, bool gradients) {
    std::vector<at::Tensor> owned;
    std::vector<std::pair<std::string, at::Tensor>> named;
    for (const auto& parameter : parameters_) {
      for (const auto& slice :
           train::logical_slices(parameter, gradients ? parameter.tensor.grad() : parameter.tensor)) {
        named.emplace_back(slice.name, slice.tensor.detach().to(at::kFloat).contiguous());
      }
    }
    std::vector<train::TensorView> views;
    for (const auto& [name, tensor] : named) {
      views.push_back({.name = name,
                       .dtype = "F32",
                       .shape = tensor.sizes().vec(),
                       .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
    }
    train::write_safetensors(file, views);
  }

  void write_batches(const std::filesystem::path& file) {
    const std::vector<int64_t> shape{batches_[0].num_sequences, batches_[0].seq_length};
    std::vector<train::TensorView> views;
    const auto add = [&](size_t i, const char* name, const std::vector<int32_t>& values) {
      views.push_back({.name = fmt::format("{}.{}", name, i),
                       .dtype = "I32",
                       .shape = shape,
                       .bytes = std::as_bytes(std::span(values))});
    };
    for (size_t i = 0; i < batches_.size(); ++i) {
      add(i, "token", batches_[i].token);
      add(i, "target", batches_[i].target);
      add(i, "document", batches_[i].document);
      add(i, "position", batches_[i].position);
    }
    train::write_safetensors(file, views);
  }

  void check(const std::filesystem::path& folder) {
    write_weights(folder / "weights.safetensors", false);
    write_batches(folder / "batches.safetensors");
    const double objective = forward_backward(batches_[0]);
    write_weights(folder / "gradients.safetensors", true);
    optimizer_->zero_grad();
    fmt::print("{{\"objective\": {}, \"tokens\": {}}}\n", objective, batches_[0].num_tokens);
    std::fflush(stdout);
  }

 private:
  train::RunConfig config_;
  std::vector<data::Batch> batches_;
  std::unique_ptr<model::LanguageModel> model_;
  std::vector<nn::TaggedParameter> parameters_;
  std::unique_ptr<optim::AdamW> optimizer_;
  std::vector<std::unique_ptr<moe::AuxLoss>> aux_losses_;
  int64_t next_ = 0;
};

int bench(int argc, char** argv) {
  if (argc < 3) throw Error("usage: bench_train_step CONFIG FOLDER [key=value ...]");
  const auto registry = moe::builtin();
  const auto config = train::read_run_config(argv[1], {argv + 3, argv + argc}, registry);
  StepBench bench(config, registry);
  std::filesystem::create_directories(argv[2]);
  bench.check(argv[2]);
  for (int steps = 0; std::cin >> steps;) {
    std::vector<double> ms;
    for (int i = 0; i < steps; ++i) ms.push_back(bench.step_ms());
    fmt::print("{{\"ms\": [{:.3f}]}}\n", fmt::join(ms, ", "));
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return bench(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
