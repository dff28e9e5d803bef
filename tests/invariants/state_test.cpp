// SPDX-License-Identifier: Apache-2.0
// Invariants 5 and 12 (docs/invariants.md): what only looks leaves the training state alone, and the library
// leaves its host alone.
#include <unistd.h>
#include <clocale>
#include <csignal>
#include <locale>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>

#include "conclave/core/files.h"
#include "conclave/optim/gradients.h"
#include "conclave/train/checkpoint_store.h"
#include "conclave/train/evaluate.h"
#include "conclave/train/metrics.h"
#include "conclave/train/model_state.h"
#include "tiny_model.h"

namespace conclave::invariants {
namespace {

std::string bytes_of_tensor(const at::Tensor& t) {
  const auto c = t.detach().contiguous();
  return {static_cast<const char*>(c.const_data_ptr()), c.nbytes()};
}

std::string generator_state() {
  return bytes_of_tensor(at::detail::getDefaultCPUGenerator().get_state());
}

// Everything that the next training step depends on.
std::string training_state(const TinyModel& tiny, const data::BatchStream& stream) {
  std::string all = generator_state();
  for (const auto& p : tiny.parameters) {
    all += bytes_of_tensor(p.tensor);
    if (p.tensor.grad().defined()) all += bytes_of_tensor(p.tensor.grad());
    all += p.tensor.requires_grad() ? "r" : "f";
  }
  for (const auto& buffer : tiny.model->named_buffers()) all += bytes_of_tensor(buffer.value());
  const auto sampler = stream.state();
  all += fmt::format("{} [{}] {}", sampler.consumed_samples, fmt::join(sampler.counts, ","),
                     sampler.fingerprint);
  return all + (tiny.model->is_training() ? "train" : "eval") + (c10::GradMode::is_enabled() ? "grad" : "");
}

class Invariant5 : public testing::Test {
 protected:
  template <class Look>
  bool leaves_the_state_alone(Look look) {
    const std::string before = training_state(tiny_, stream_);
    look();
    const bool same = training_state(tiny_, stream_) == before;
    c10::GradMode::set_enabled(true);
    return same;
  }
  TinyModel tiny_;
  data::BatchStream stream_ = tiny_.stream(2);
};

TEST_F(Invariant5, evaluation_leaves_the_training_state_alone_and_one_that_takes_training_batches_is_caught) {
  moe::ForwardContext context;
  tiny_.model->loss(stream_.next(), context).sum.backward();  // gradients and a position to lose
  const data::EvaluationSet set(tiny_.dataset, {.micro_batch_size = 3});
  ASSERT_GT(set.num_batches(), 0);
  EXPECT_TRUE(leaves_the_state_alone([&] { train::evaluate(*tiny_.model, set, 1, 4); }));
  // Broken doubles, each with one of the usual mistakes.
  EXPECT_FALSE(leaves_the_state_alone([&] { stream_.next(); })) << "advances the sampler";
  EXPECT_FALSE(leaves_the_state_alone([&] { at::randn({3}); })) << "draws from the global generator";
  EXPECT_FALSE(leaves_the_state_alone([&] { tiny_.model->eval(); })) << "leaves the mode changed";
  EXPECT_FALSE(leaves_the_state_alone([&] { c10::GradMode::set_enabled(false); })) << "leaves gradients off";
  EXPECT_FALSE(leaves_the_state_alone([&] { tiny_.model->zero_grad(); })) << "drops gradients";
}

TEST_F(Invariant5, a_checkpoint_leaves_the_training_state_alone) {
  stream_.next();
  const optim::ParameterShards shards(tiny_.parameters);
  optim::AdamW optimizer(shards.owned(), {});
  train::CheckpointStore store(tiny_.folder / "checkpoints");
  EXPECT_TRUE(leaves_the_state_alone([&] {
    train::CheckpointContents contents{.step = 1, .tokens = 2, .state = "{}"};
    contents.files = train::checkpoint_files(shards, train::named_buffers(*tiny_.model), optimizer);
    store.save(contents);
  }));
}

void (*handler_of(int signal))(int) {
  struct sigaction action {};
  ::sigaction(signal, nullptr, &action);
  return action.sa_handler;
}

// What belongs to the program that links the library.
std::string host_state() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  std::string all = fmt::format("{} {} {} {} {} {}", at::get_num_threads(),
                                std::string(c10::scalarTypeToTypeMeta(c10::ScalarType::Float).name()) +
                                    std::string(c10::get_default_dtype().name()),
                                std::setlocale(LC_ALL, nullptr), std::locale().name(),
                                std::filesystem::current_path().string(), mask);
  for (int signal = 1; signal < 32; ++signal)
    if (signal != SIGKILL && signal != SIGSTOP)
      all += fmt::format(" {}", reinterpret_cast<uintptr_t>(handler_of(signal)));
  all += c10::GradMode::is_enabled() ? " grad" : " no grad";
  all += at::globalContext().deterministicAlgorithms() ? " deterministic" : "";
  all += fmt::format(" {}", at::globalContext().deterministicFillUninitializedMemory());
  volatile float tiny_number = 1e-38f;
  all += tiny_number * 0.01f > 0 ? " denormals" : " flushed";
  return all + generator_state();
}

// Puts everything back, so that one broken double does not hide the next.
template <class Call>
bool leaves_the_host_alone(Call call) {
  const std::string before = host_state();
  const int threads = at::get_num_threads();
  const auto folder = std::filesystem::current_path();
  const std::locale locale;
  call();
  const bool same = host_state() == before;
  at::set_num_threads(threads);
  c10::set_default_dtype(c10::scalarTypeToTypeMeta(at::kFloat));
  std::locale::global(locale);
  std::filesystem::current_path(folder);
  std::signal(SIGTERM, SIG_DFL);
  at::globalContext().setFlushDenormal(false);
  at::globalContext().setDeterministicAlgorithms(false, false);
  return same;
}

void use_the_whole_library() {
  TinyModel tiny;
  const auto file = tiny.folder / "a.yaml";
  std::ofstream(file) << "model: {hidden_size: 12, num_attention_heads: 3, num_key_value_heads: 3}\n"
                         "data: {train: [{path: a.txt}]}\ntraining: {train_iters: 2}\n";
  train::dump_run_config(train::read_run_config(file, {"run.seed=3"}, tiny.registry), tiny.registry);
  const optim::ParameterShards shards(tiny.parameters);
  optim::AdamW optimizer(shards.owned(), {});
  auto stream = tiny.stream(2);
  for (int step = 0; step < 2; ++step) {
    moe::ForwardContext context;
    tiny.model->loss(stream.next(), context).sum.backward();
    optimizer.step(1e-3, 1.0 / (1.0 + optim::Gradients(tiny.parameters).norm()));
    optimizer.zero_grad();
  }
  train::evaluate(*tiny.model, {tiny.dataset, {.micro_batch_size = 3}}, 1, 2);
  train::CheckpointStore store(tiny.folder / "checkpoints");
  train::CheckpointContents contents{.step = 2, .tokens = 2, .state = "{}"};
  contents.files = train::checkpoint_files(shards, train::named_buffers(*tiny.model), optimizer);
  store.save(contents);
  train::restore_weights(store.open(2), tiny.parameters, train::named_buffers(*tiny.model));
  train::restore_moments(store.open(2), shards, optimizer);
  const train::Metric metric{"train/loss", 0.5};
  for (const auto& sink : train::make_metrics_sinks({"jsonl", "tensorboard"}, train::builtin_metrics_sinks(),
                                                    {.folder = tiny.folder.path()}))
    sink->emit(1, 2.5, std::span(&metric, 1));
}

TEST(Invariant12, the_library_leaves_the_globals_of_its_host_alone_and_each_change_of_one_is_caught) {
  EXPECT_TRUE(leaves_the_host_alone(use_the_whole_library));
  EXPECT_FALSE(leaves_the_host_alone([] { at::set_num_threads(at::get_num_threads() + 1); }));
  EXPECT_FALSE(leaves_the_host_alone([] { c10::set_default_dtype(c10::scalarTypeToTypeMeta(at::kDouble)); }));
  EXPECT_FALSE(leaves_the_host_alone(
      [] { std::locale::global(std::locale(std::locale(), new std::numpunct<char>)); }));
  EXPECT_FALSE(leaves_the_host_alone([] { std::signal(SIGTERM, [](int) {}); }));
  EXPECT_FALSE(leaves_the_host_alone([] { std::filesystem::current_path("/"); }));
  EXPECT_FALSE(leaves_the_host_alone([] { at::globalContext().setFlushDenormal(true); }));
  EXPECT_FALSE(leaves_the_host_alone([] { at::globalContext().setDeterministicAlgorithms(true, false); }));
  EXPECT_FALSE(leaves_the_host_alone([] { at::randn({2}); }));
}

}  // namespace
}  // namespace conclave::invariants
