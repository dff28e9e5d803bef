// SPDX-License-Identifier: Apache-2.0
// The tree of keys: what loads, what `auto` becomes, and what is said of mistakes over several keys.
#include "conclave/train/run_config.h"

#include "conclave/config/load.h"
#include "conclave/config/parse.h"
#include "conclave/train/resolve.h"
#include "train/small_run.h"

namespace conclave::train {
namespace {

class RunConfigKeys : public SmallRun {
 protected:
  // What is wrong with a file of this text; "" when nothing.
  std::string mistakes_in(const std::string& text) {
    write("a.yaml", text);
    return failure([&] { read_run_config(folder_ / "a.yaml", {}, registry_); });
  }
};

constexpr const char* kWholeTree = R"(
schema_version: 1
run: {name: quickstart, output_dir: "runs/${run.name}", seed: 1234, tags: {}}
device: auto
model:
  vocab_size: auto
  hidden_size: 256
  num_hidden_layers: 4
  num_attention_heads: 4
  num_key_value_heads: 4
  head_dim: null
  intermediate_size: 512
  hidden_act: silu
  rms_norm_eps: 1.0e-06
  rope_theta: 10000.0
  qk_norm: none
  tie_word_embeddings: false
  initializer_range: 0.02
  moe:
    num_experts: 8
    moe_intermediate_size: 256
    first_k_dense_replace: 0
    decoder_sparse_step: 1
    layers: null
    num_shared_experts: 0
    router:
      type: topk
      top_k: 2
      score_function: softmax
      score_before_topk: true
      norm_topk_prob: true
      routed_scaling_factor: 1.0
      jitter_eps: 0.0
      capacity: {factor: null, eval_factor: null}
      on_nonfinite: error
      allow_noncausal: false
    aux_losses:
      - {type: load_balancing, weight: 1.0e-02, scope: micro_batch}
      - {type: z_loss, weight: 1.0e-03}
    balance_update: {type: none}
    dispatcher: {type: auto}
tokenizer: {type: bytes}
data:
  seq_length: 256
  packing: concat
  shuffle: true
  num_workers: 1
  train: [{corpus: domains4, weight: 1.0}]
  valid: {fraction: 0.05}
training:
  train_iters: 2000
  max_minutes: 5.3
  global_batch_size: 8
  micro_batch_size: 8
  precision: fp32
  clip_grad: 1.0
  on_nonfinite: error
  freeze: []
optimizer: {type: adamw, lr: 1.5e-03, betas: [0.9, 0.95], eps: 1.0e-08, weight_decay: 0.1, router_lr_multiplier: 1.0}
lr_scheduler: {type: cosine, warmup_fraction: 0.03, min_lr: 0.0}
parallelism: {data_parallel_size: auto, expert_parallel_size: 1, tensor_parallel_size: 1,
              expert_tensor_parallel_size: 1, zero_stage: 0, backend: auto}
checkpoint: {interval: 500, keep_latest_k: 2, keep_every: null, resume: auto, init_from: null, on_save_error: continue}
evaluation: {interval: 100, iters: null, at_start: false}
logging: {interval: 10, metrics: [jsonl, tensorboard]}
)";

TEST_F(RunConfigKeys, the_whole_tree_loads_and_every_auto_is_a_value_with_its_reason_in_the_frozen_copy) {
  write("a.yaml", kWholeTree);
  config::Node written;
  const auto config = read_run_config(folder_ / "a.yaml", {}, registry_, &written);
  EXPECT_EQ(config.run.folder(), "runs/quickstart");
  const auto dump = dump_run_config(config, registry_, &written);
  const auto text = config::emit_yaml_with_origins(dump);
  for (const char* line : {"device: cpu  # auto: this program was built for CPUs\n",
                           "  vocab_size: 257  # auto: size of the tokenizer\n",
                           "      type: local  # auto: every rank has all experts\n",
                           "  data_parallel_size: 1  # auto: as many ranks as share the experts\n",
                           "  backend: local  # auto: one rank\n", "  on_save_error: continue  # "}) {
    EXPECT_TRUE(has(text, line)) << line << "\n" << text;
  }
  write("frozen.yaml", text);
  const auto again = dump_run_config(read_run_config(folder_ / "frozen.yaml", {}, registry_), registry_);
  EXPECT_EQ(config::differences(dump, again), std::vector<std::string>{});
}

TEST_F(RunConfigKeys, exactly_one_length_of_the_run) {
  const std::string head = "data: {train: [{corpus: domains4}]}\n";
  const std::string wanted = "give exactly one of train_iters, train_tokens and train_epochs";
  const auto none = mistakes_in(head + "training: {}\n");
  EXPECT_TRUE(has(none, "a.yaml:2:11: error: training: " + wanted)) << none;
  EXPECT_TRUE(has(mistakes_in(head + "training: {train_iters: 3, train_epochs: 0.5}\n"), wanted));
  EXPECT_TRUE(has(mistakes_in(head + "training: {train_tokens: 4M, train_epochs: 2}\n"), wanted));
  EXPECT_EQ(mistakes_in(head + "training: {train_epochs: 0.5}\n"), "");
}

TEST_F(RunConfigKeys, an_indivisible_batch_shows_the_nearest_legal_values_at_its_place) {
  const std::string head = "data: {train: [{corpus: domains4}]}\n";
  const auto between =
      mistakes_in(head + "training: {train_iters: 3, global_batch_size: 10, micro_batch_size: 4}\n");
  EXPECT_TRUE(has(between,
                  "a.yaml:2:47: error: training.global_batch_size: 10 is not divisible by "
                  "micro_batch_size 4"))
      << between;
  EXPECT_TRUE(has(between, "use 8 or 12")) << between;
  const auto below =
      mistakes_in(head + "training: {train_iters: 3, global_batch_size: 3, micro_batch_size: 5}\n");
  EXPECT_TRUE(has(below, "use 5")) << below;
}

TEST_F(RunConfigKeys, sizes_that_do_not_fit_each_other_are_told_in_the_users_terms) {
  const std::string tail = "data: {train: [{corpus: domains4}]}\ntraining: {train_iters: 3}\n";
  const auto heads =
      mistakes_in("model: {hidden_size: 100, num_attention_heads: 3, num_key_value_heads: 3}\n" + tail);
  EXPECT_TRUE(has(
      heads, "a.yaml:1:48: error: model.num_attention_heads: hidden_size 100 is not divisible by 3 heads"))
      << heads;
  EXPECT_TRUE(has(heads, "set head_dim, or change one of the two")) << heads;
  const auto groups = mistakes_in("model: {num_attention_heads: 4, num_key_value_heads: 3}\n" + tail);
  EXPECT_TRUE(has(groups, "a.yaml:1:54: error: model.num_key_value_heads: 4 query heads cannot share 3"))
      << groups;
  const auto odd = mistakes_in("model: {head_dim: 5}\n" + tail);
  EXPECT_TRUE(has(odd, "a.yaml:1:19: error: model.head_dim: rotary positions need an even head width"))
      << odd;
  const auto top_k = mistakes_in("model:\n  moe:\n    num_experts: 5\n    router: {top_k: 6}\n" + tail);
  EXPECT_TRUE(has(top_k, "a.yaml:4:21: error: model.moe.router: each token takes 6 experts, but there are 5"))
      << top_k;
  EXPECT_TRUE(has(top_k, "use at most 5")) << top_k;
  const auto layer = mistakes_in("model: {num_hidden_layers: 3, moe: {layers: [1, 3]}}\n" + tail);
  EXPECT_TRUE(has(layer, "a.yaml:1:45: error: model.moe.layers: layer 3 does not exist")) << layer;
  const auto rates = mistakes_in("optimizer: {lr: 0.001}\nlr_scheduler: {min_lr: 0.01}\n" + tail);
  EXPECT_TRUE(has(rates, "a.yaml:2:24: error: lr_scheduler.min_lr: 0.01 is above optimizer.lr")) << rates;
}

TEST_F(RunConfigKeys, what_this_version_cannot_run_on_is_refused_by_name) {
  const auto one = [&](const std::string& override_text) { return mistakes({override_text}); };
  // A file for another machine is valid here; opening its device is not.
  EXPECT_EQ(one("device=cuda"), "");
  EXPECT_EQ(open_device(Device::kCpu), c10::Device(c10::DeviceType::CPU));
  EXPECT_EQ(failure([] { open_device(Device::kCuda); }),
            "device: cuda: this program was built for CPUs; write device: cpu, or leave it at auto");
  EXPECT_TRUE(has(one("device=gpu"), "choices: auto, cpu, cuda"));
  for (const char* key : {"tensor_parallel_size", "expert_tensor_parallel_size"}) {
    const auto message = one(fmt::format("parallelism.{}=4", key));
    EXPECT_TRUE(has(message, fmt::format("parallelism.{}: 4 ranks are to split a matrix", key))) << message;
    EXPECT_EQ(one(fmt::format("parallelism.{}=1", key)), "");
  }
  EXPECT_TRUE(has(one("parallelism.zero_stage=2"), "this version keeps them whole"));
  EXPECT_TRUE(has(one("parallelism.backend=nccl"), "parallelism.backend: nccl connects GPUs"));
  EXPECT_EQ(mistakes({"device=cuda", "parallelism.backend=nccl"}), "");
  EXPECT_TRUE(has(one("model.moe.dispatcher.rank_budget=100"), "one rank has all experts"));
  EXPECT_TRUE(has(one("model.moe.dispatcher.on_overflow=drop"), "rank_budget is null"));
  const std::string padding = "model.moe.dispatcher.pad_to_capacity=true";
  EXPECT_TRUE(has(one(padding), "pad_to_capacity: one rank has all experts"));
  const std::string two = "parallelism.expert_parallel_size=2", limit = "model.moe.router.capacity.factor=1";
  EXPECT_TRUE(has(mistakes({two, padding}), "pad_to_capacity: the router has no capacity"));
  EXPECT_TRUE(
      has(mistakes({two, padding, limit, "model.moe.dispatcher.type=all_gather"}), "not rows for experts"));
  EXPECT_TRUE(
      has(mistakes({two, padding, limit, "model.moe.dispatcher.rank_budget=9"}), "leave one of the two"));
  EXPECT_EQ(mistakes({two, padding, limit, "model.moe.num_experts=6"}), "");
  EXPECT_EQ(one("model.moe.dispatcher={type: local}"), "");
  EXPECT_EQ(one("model.moe.dispatcher={type: all_to_all}"), "");
}

TEST_F(RunConfigKeys, a_layer_that_cannot_be_recorded_says_why) {
  const std::vector<std::string> recorded = {
      "model.moe.cuda_graph=true", "device=cuda",          "model.moe.router.jitter_eps=0",
      "training.precision=bf16",   "model.hidden_size=24", "model.moe.moe_intermediate_size=16"};
  const auto with = [&](const std::string& change) {
    auto overrides = recorded;
    overrides.push_back(change);
    return mistakes(overrides);
  };
  EXPECT_EQ(mistakes(recorded), "");
  EXPECT_EQ(with("training.precision=auto"), "");
  EXPECT_TRUE(has(with("device=cpu"), "model.moe.cuda_graph: there is no GPU to record it"));
  EXPECT_TRUE(has(with("model.moe.router.jitter_eps=0.1"), "draws at random"));
  EXPECT_TRUE(has(with("model.moe.router.capacity={factor: {schedule: linear, from: 1, to: 2, end_step: 9}}"),
                  "follows a schedule"));
  EXPECT_TRUE(has(with("parallelism.expert_parallel_size=2"), "exchanges between ranks"));
  EXPECT_TRUE(has(with("model.moe.dispatcher.type=all_to_all"), "exchanges between ranks"));
  EXPECT_EQ(with("model.moe.dispatcher.type=local"), "");
  EXPECT_TRUE(has(with("training.recompute=full"), "not recomputed"));
  EXPECT_TRUE(has(with("data.packing=none"), "rows end in padding"));
  EXPECT_TRUE(has(with("training.precision=fp32"), "one after the other"));
  EXPECT_TRUE(has(with("model.moe.moe_intermediate_size=12"), "one after the other"));
}

TEST_F(RunConfigKeys, a_layout_that_cannot_be_is_refused_with_the_nearest_that_can) {
  const auto layout = [&](std::vector<std::string> overrides, std::optional<int64_t> started = {}) {
    overrides.insert(overrides.begin(), {"model.moe.num_experts=6", "training.global_batch_size=12"});
    return failure(
        [&] { read_run_config(folder_ / "small.yaml", overrides, registry_, nullptr, {}, started); });
  };
  EXPECT_EQ(layout({"parallelism.expert_parallel_size=2"}), "")
      << "without a launch the file stands for itself";
  EXPECT_EQ(layout({"parallelism.expert_parallel_size=2"}, 4), "");
  const auto alone = layout({"parallelism.expert_parallel_size=2"}, 1);
  EXPECT_TRUE(has(alone, "parallelism.expert_parallel_size: 2 ranks are to share the experts, started: 1"))
      << alone;
  EXPECT_TRUE(has(alone, "conclave launch -n 2 train")) << alone;
  EXPECT_TRUE(
      has(layout({"parallelism.expert_parallel_size=3"}, 4), "write 1, 2, 4, or start a multiple of 3"));
  EXPECT_TRUE(has(layout({"parallelism.data_parallel_size=2"}, 4),
                  "parallelism.data_parallel_size: 2 ranks are asked for, started: 4"));
  const auto experts = layout({"parallelism.expert_parallel_size=4"}, 4);
  EXPECT_TRUE(has(experts, "4 ranks cannot share 6 experts evenly")) << experts;
  EXPECT_TRUE(has(experts, "use 1, 2, 3, 6")) << experts;
  EXPECT_TRUE(has(layout({"parallelism={data_parallel_size: 3, expert_parallel_size: 2}"}),
                  "3 data-parallel ranks cannot be cut into groups of 2 that share the experts"));
  const auto batch = layout({"training.micro_batch_size=3"}, 3);
  EXPECT_TRUE(
      has(batch, "training.global_batch_size: 12 is not divisible by 3 ranks with a micro_batch_size of 3"))
      << batch;
  EXPECT_TRUE(has(batch, "use 9 or 18")) << batch;
  EXPECT_TRUE(
      has(layout({"parallelism.backend=local"}, 2), "parallelism.backend: local is one rank, there are 2"));
  EXPECT_TRUE(has(layout({"parallelism.expert_parallel_size=2", "model.moe.dispatcher={type: local}"}, 2),
                  "the experts are on 2 ranks, and local reaches those of one"));
  EXPECT_TRUE(
      has(layout({"parallelism.expert_parallel_size=2", "model.moe=null"}, 2), "the model has no experts"));
}

TEST_F(RunConfigKeys, a_gate_that_compares_documents_is_refused_with_concat_unless_allowed) {
  const std::vector<std::string> base = {"model.moe.router={type: expert_choice, allow_noncausal: true}",
                                         "model.moe.aux_losses=[]", "model.moe.balance_update={type: none}"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), base.begin(), base.end());
    return mistakes(more);
  };
  const auto message = with({});
  EXPECT_TRUE(has(message, "router 'expert_choice' compares all tokens of a micro-batch")) << message;
  EXPECT_TRUE(has(message, "model.moe.router.allow_cross_document: true")) << message;
  EXPECT_EQ(with({"model.moe.router.allow_cross_document=true"}), "");
  EXPECT_EQ(with({"data.packing=none"}), "");
  EXPECT_EQ(mistakes({"model.moe.router={type: soft, allow_noncausal: true}", "model.moe.aux_losses=[]",
                      "model.moe.balance_update={type: none}"}),
            "")
      << "the group of soft is one document";
}

TEST_F(RunConfigKeys, evaluation_iters_counts_global_batches_and_replaces_the_fixed_sample) {
  EXPECT_EQ(read("x").evaluation_tokens(), 63);
  EXPECT_EQ(RunConfig{}.evaluation_tokens(), 128 << 10);
  EXPECT_TRUE(has(mistakes({"evaluation.iters=3"}), "evaluation.sample_tokens has no effect here"));
  EXPECT_EQ(read("x", {"~evaluation.sample_tokens", "evaluation.iters=3"}).evaluation_tokens(), 3 * 6 * 21);
}

TEST_F(RunConfigKeys, a_folder_of_another_config_is_refused_with_the_difference) {
  const auto open = [&](const std::vector<std::string>& overrides) {
    const auto now = dump_run_config(read("run", overrides), registry_);
    RunDirectory(
        folder_ / "run", {.resolved_config = config::emit_yaml_with_origins(now), .environment_json = "{}"},
        [&](const std::string& old) {
          return config::differences(config::parse_yaml("resolved_config.yaml", old), now);
        },
        false);
  };
  open({});
  EXPECT_EQ(failure([&] { open({"model.vocab_size=257", "device=cpu"}); }), "") << "what auto came to";
  const auto message = failure([&] { open({"training.train_iters=7", "optimizer.lr=0.002"}); });
  EXPECT_TRUE(has(message, "training.train_iters: 6 -> 7")) << message;
  EXPECT_TRUE(has(message, "optimizer.lr: 0.0015 -> 0.002")) << message;
  EXPECT_TRUE(has(message, "--fresh")) << message;
}

TEST_F(RunConfigKeys, an_empty_corpus_and_a_missing_file_are_named) {
  write("empty.txt", "");
  const auto empty =
      failure([&] { train(read("x", {"data.train=[{path: " + (folder_ / "empty.txt").string() + "}]"})); });
  EXPECT_TRUE(has(empty, "empty.txt")) << empty;
  const auto missing =
      failure([&] { train(read("x", {"data.train=[{path: " + (folder_ / "none.txt").string() + "}]"})); });
  EXPECT_TRUE(has(missing, "none.txt")) << missing;
  EXPECT_TRUE(
      has(failure([&] { read_run_config(folder_ / "nowhere.yaml", {}, registry_); }), "nowhere.yaml"));
  EXPECT_TRUE(has(mistakes({"data.train=[]"}), "train lists no source"));
}

}  // namespace
}  // namespace conclave::train
