// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/config/fields.h"
#include "conclave/config/load.h"
#include "conclave/core/error.h"

// A configuration with one of everything, and short ways to read it.
namespace config_sample {

using namespace conclave::config;

enum class Precision { kFp32, kBf16 };

struct Capacity {
  std::optional<Value> factor = {};
  int64_t min = 4;
  std::string order = "position";
  void fields(Fields& f) {
    f("factor", factor, "Slots per expert; null: no limit.").positive().alias("moe_expert_capacity_factor");
    f("min", min, "Least slots.").min(0).only_if([this] { return factor.has_value(); }, "factor is null");
    f("order", order, "Who stays.").one_of({"position", "prob", "random"});
  }
};

struct TopK {
  int64_t top_k = 2;
  bool norm = true;
  Capacity capacity = {};
  void fields(Fields& f) {
    f("top_k", top_k, "Experts per token.").min(1).alias("moe_router_topk");
    f("norm_topk_prob", norm, "Divide by the sum.");
    f("capacity", capacity, "Limit per expert.");
  }
};

struct Soft {
  double slots = 1.5;
  void fields(Fields& f) { f("slots_per_expert", slots, "Slots.").positive(); }
};

struct Empty {
  void fields(Fields&) {}
};

struct Loss {
  Value weight = 0.01;
  void fields(Fields& f) { f("weight", weight, "Weight.").min(0); }
};

struct Corpus {
  std::string path = "";
  double weight = 1.0;
  void fields(Fields& f) {
    f("path", path, "File.").required();
    f("weight", weight, "Share.").positive();
  }
};

struct Moe {
  int64_t num_experts = 8;
  std::optional<std::vector<int64_t>> layers = {};
  Plugin router = {.type = "topk", .options = {}};
  Plugin noise = {.type = "none", .options = {}};
  std::vector<Plugin> losses = {};
  void fields(Fields& f) {
    f("num_experts", num_experts, "Routed experts.").min(1).alias("num_local_experts");
    f("layers", layers, "Which layers.").min(0);
    f.plugin("router", router, "routers", "Who goes where.");
    f.plugin("noise", noise, "noises", "Noise on logits.");
    f.plugins("aux_losses", losses, "aux_losses", "Auxiliary losses.");
  }
};

struct Training {
  int64_t global_batch_size = 12;
  int64_t micro_batch_size = 6;
  Precision precision = Precision::kBf16;
  Value lr = 1.5e-3;
  std::vector<double> betas = {0.9, 0.95};
  bool deterministic = false;
  void fields(Fields& f) {
    f("global_batch_size", global_batch_size, "Sequences a step.").min(1);
    f("micro_batch_size", micro_batch_size, "Sequences at once.").min(1).max(4096);
    f("precision", precision, {{"fp32", Precision::kFp32}, {"bf16", Precision::kBf16}}, "Arithmetic.");
    f("lr", lr, "Learning rate.").positive();
    f("betas", betas, "Decay of moments.").min(0).less_than(1);
    f("deterministic", deterministic, "Same bits every time.");
    f.check([this](Check& check) {
      if (global_batch_size % micro_batch_size == 0) return;
      check.error("global_batch_size",
                  std::to_string(global_batch_size) + " is not divisible by micro_batch_size (" +
                      std::to_string(micro_batch_size) + ")",
                  "change one of them");
    });
  }
};

struct Root {
  std::string name = "quick";
  std::optional<std::string> note = {};
  std::map<std::string, std::string> tags = {};
  std::vector<std::string> metrics = {"jsonl", "tensorboard"};
  std::vector<int64_t> seeds = {};
  std::optional<double> clip = 1.0;
  std::optional<int64_t> every = {};
  std::optional<Moe> moe = {};
  std::vector<Corpus> train = {};
  Training training = {};
  void fields(Fields& f) {
    f("name", name, "Name of the run.");
    f("note", note, "Free text.");
    f("tags", tags, "Labels.");
    f("metrics", metrics, "Where numbers go.").one_of({"jsonl", "tensorboard", "csv"});
    f("seeds", seeds, "Seeds.");
    f("clip_grad", clip, "Largest norm.").positive();
    f("keep_every", every, "Keep each n-th.").min(1);
    f("moe", moe, "Mixture of experts; absent: dense.");
    f("train", train, "Sources.");
    f("training", training, "The loop.");
  }
};

inline Tables tables() {
  return {
      {"routers", {{"topk", "Best k.", [] { return TopK{}; }}, {"soft", "Mixes.", [] { return Soft{}; }}}},
      {"noises",
       {{"none", "No noise.", [] { return Empty{}; }}, {"jitter", "Uniform.", [] { return Loss{}; }}}},
      {"aux_losses",
       {{"load_balancing", "Even load.", [] { return Loss{}; }},
        {"z_loss", "Small logits.", [] { return Loss{.weight = 1e-3}; }}}}};
}

template <class T>
std::function<void(Fields&)> declare(T& object) {
  return [&object](Fields& f) { object.fields(f); };
}

// What reading `yaml` complains about; "" when nothing.
template <class T = Root>
std::string errors_of(const std::string& yaml, T object = {}) {
  try {
    Problems problems;
    const Tables t = tables();
    read_fields(declare(object), &t, parse_yaml("a.yaml", yaml), "", problems);
    problems.throw_if_any();
    return "";
  } catch (const conclave::ConfigError& error) {
    return error.what();
  }
}

template <class T = Root>
T read(const std::string& yaml) {
  T object{};
  const Tables t = tables();
  Problems problems;
  read_fields(declare(object), &t, parse_yaml("a.yaml", yaml), "", problems);
  EXPECT_TRUE(problems.empty()) << problems.render();
  return object;
}

template <class T>
std::string dump(T& object) {
  const Tables t = tables();
  return emit_yaml(dump_fields(declare(object), &t, nullptr));
}

inline void expect_part(const std::string& got, const std::string& part) {
  EXPECT_NE(got.find(part), std::string::npos) << "wanted: " << part << "\ngot: " << got;
}

}  // namespace config_sample
