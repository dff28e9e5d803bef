// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/trace_observer.h"

#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "conclave/core/files.h"
#include "tiny_run.h"

namespace {

using namespace conclave;
using namespace conclave::analyze;

std::shared_ptr<train::EvaluationObserver> tracing(const train::RunDirectory& directory, train::Trainer*&) {
  return std::make_shared<TraceObserver>(
      TraceOptions{.run = directory.folder(), .last_step = directory.resume_step().value_or(-1)});
}

// What an observer must not do.
struct Meddler : train::EvaluationObserver {
  explicit Meddler(train::Trainer*& t) : trainer(t) {}
  void begin(const train::EvaluationStart&) override {}
  void observe(const data::Batch&, std::span<const moe::RouterTrace>) override {
    const c10::NoGradGuard no_grad;
    trainer->model().parameters().front().mul_(1.0 + 1e-15);
  }
  void end() override {}
  train::Trainer*& trainer;
};

std::string last_model(const TinyRun& tiny, const std::string& name) {
  return read_file(tiny.run(name) / "checkpoints/step-00000009/model.safetensors");
}

TEST(TraceObserver, TrainingWithItIsBitwiseTrainingWithoutIt) {
  TinyRun tiny;
  tiny.train(tiny.read("with"), tracing);
  tiny.train(tiny.read("without"), {});
  EXPECT_EQ(last_model(tiny, "with"), last_model(tiny, "without"));
  for (const char* name : {"optimizer.safetensors", "state.json"}) {
    EXPECT_EQ(read_file(tiny.run("with") / "checkpoints/step-00000009" / name),
              read_file(tiny.run("without") / "checkpoints/step-00000009" / name));
  }
  EXPECT_FALSE(std::filesystem::exists(tiny.run("without") / kRoutingFolder));
}

TEST(TraceObserver, TheLawAboveNoticesAnObserverThatTouchesTheModel) {
  TinyRun tiny;
  tiny.train(tiny.read("with"), [](const train::RunDirectory&, train::Trainer*& trainer) {
    return std::make_shared<Meddler>(trainer);
  });
  tiny.train(tiny.read("without"), {});
  EXPECT_NE(last_model(tiny, "with"), last_model(tiny, "without"));
}

TEST(TraceObserver, EveryEvaluatedStepStandsOnceAndCountsEveryToken) {
  TinyRun tiny;
  tiny.train(tiny.read("run"), tracing);
  EXPECT_EQ(routing_steps(tiny.run("run")), (std::vector<int64_t>{2, 4, 6, 8, 9}));
  for (const int64_t step : routing_steps(tiny.run("run"))) {
    const auto record = read_routing_record(routing_file(tiny.run("run"), step));
    EXPECT_EQ(record.step, step);
    EXPECT_EQ(record.whole, step == 9);
    EXPECT_EQ(record.domains, (std::vector<std::string>{"figures", "beasts"}));
    ASSERT_EQ(record.layers.size(), 2u);
    EXPECT_EQ(record.layers[1].layer, 2);
    for (const auto& layer : record.layers) {
      double total = 0, by_domain = 0;
      for (const auto& e : layer.experts) {
        total += e.requested;
        for (const double amount : e.by_domain) by_domain += amount;
      }
      EXPECT_EQ(total, 2.0 * static_cast<double>(record.num_tokens)) << "top-2";
      EXPECT_EQ(by_domain, total);
      EXPECT_GT(layer.router_entropy.value(), 0.0);
    }
  }
}

TEST(TraceObserver, AResumedRunHasTheFilesOfTheUninterruptedOne) {
  TinyRun tiny;
  tiny.train(tiny.read("whole"), tracing);
  tiny.train(tiny.read("parts"), tracing, 5);
  // What a later life of the run had written before it was killed without a checkpoint.
  write_file_atomically(routing_file(tiny.run("parts"), 7), "damaged");
  write_file_atomically(tiny.run("parts") / kRoutingFolder / "notes.txt", "of the user");
  tiny.train(tiny.read("parts"), tracing);
  EXPECT_EQ(routing_steps(tiny.run("parts")), routing_steps(tiny.run("whole")));
  for (const int64_t step : routing_steps(tiny.run("whole"))) {
    EXPECT_EQ(read_file(routing_file(tiny.run("parts"), step)),
              read_file(routing_file(tiny.run("whole"), step)));
  }
  EXPECT_TRUE(std::filesystem::exists(tiny.run("parts") / kRoutingFolder / "notes.txt"));
}

TEST(TraceObserver, TheNumberOfFilesIsBoundedAndTheFirstAndNewestStay) {
  TinyRun tiny;
  tiny.train(tiny.read("run", {"evaluation.interval=1"}), [](const train::RunDirectory& d, train::Trainer*&) {
    return std::make_shared<TraceObserver>(TraceOptions{.run = d.folder(), .max_files = 4});
  });
  const auto steps = routing_steps(tiny.run("run"));
  EXPECT_LE(steps.size(), 4u);
  EXPECT_EQ(steps.front(), 1);
  EXPECT_EQ(steps.back(), 9);
}

TEST(TraceObserver, AFolderThatCannotBeWrittenCostsOneWarningAndNotTheRun) {
  TinyRun tiny;
  int warnings = 0;
  const auto result = tiny.train(tiny.read("run"), [&](const train::RunDirectory& d, train::Trainer*&) {
    write_file_atomically(d.folder() / kRoutingFolder, "a file where the folder should be");
    return std::make_shared<TraceObserver>(TraceOptions{
        .run = d.folder(),
        .log = Log([&](LogLevel level, const std::string&) { warnings += level == LogLevel::kWarning; })});
  });
  EXPECT_EQ(result.step, 9);
  EXPECT_EQ(warnings, 1);
}

TEST(TraceObserver, GatesThatMixAndDenseModelsAreRecordedForWhatTheyAre) {
  TinyRun tiny;
  tiny.train(tiny.read("soft", {"model.moe.router={type: soft}", "model.moe.aux_losses=[]",
                                "model.moe.allow_noncausal=true", "training.train_iters=2"}),
             tracing);
  const auto record = read_routing_record(routing_file(tiny.run("soft"), 2));
  for (const auto& layer : record.layers) {
    EXPECT_EQ(layer.unit, RoutingUnit::kMass);
    double total = 0;
    for (const auto& e : layer.experts) total += e.requested;
    EXPECT_NEAR(total, static_cast<double>(record.num_tokens), 1e-9) << "combine weights of a token sum to 1";
  }
  tiny.train(tiny.read("dense", {"~model.moe", "training.train_iters=2"}), tracing);
  EXPECT_TRUE(routing_steps(tiny.run("dense")).empty());
}

}  // namespace
