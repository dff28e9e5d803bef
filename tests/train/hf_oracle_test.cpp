// SPDX-License-Identifier: Apache-2.0
// Whole models against the transformers library in fp64: logits, loss, balancing loss and every gradient.
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/core/files.h"
#include "conclave/model/language_model.h"
#include "conclave/moe/losses/losses.h"
#include "conclave/moe/routers/topk.h"
#include "conclave/train/model_state.h"
#include "conclave/train/safetensors.h"
#include "temporary_folder.h"

namespace {

using namespace conclave;

constexpr double kAuxWeight = 0.25;  // AUX_WEIGHT of hf_oracle.py

at::Tensor read_tensor(const train::SafetensorsFile& file, const std::string& name) {
  const auto& view = file.at(name);
  auto tensor = at::empty(view.shape, view.dtype == "I64" ? at::kLong : at::kDouble);
  EXPECT_EQ(tensor.nbytes(), view.bytes.size()) << name;
  std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  if (const auto at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

// The published checkpoint's name of a parameter of ours, given by its logical name.
std::string checkpoint_name(const std::string& family, std::string name) {
  if (name == "lm_head") return "lm_head.weight";
  if (name == "embed_tokens") return "model.embed_tokens.weight";
  name = replaced(std::move(name), "layers_", "layers.");
  name = replaced(std::move(name), ".moe.router.selection_bias", ".mlp.gate.e_score_correction_bias");
  name = replaced(std::move(name), ".moe.router.", ".mlp.gate.");
  name = replaced(std::move(name), ".moe.", ".mlp.");
  if (family == "qwen2_moe") name = replaced(std::move(name), ".shared_experts.", ".shared_expert.");
  if (family == "mixtral") {
    name = replaced(std::move(name), ".mlp.", ".block_sparse_moe.");
    name = replaced(std::move(name), ".gate_proj.", ".w1.");
    name = replaced(std::move(name), ".up_proj.", ".w3.");
    name = replaced(std::move(name), ".down_proj.", ".w2.");
  }
  return "model." + name;
}

// The shapes and conventions of hf_oracle.py in our words.
model::ModelOptions options_of(const std::string& family) {
  model::ModelOptions o{.hidden_size = 12,
                        .num_hidden_layers = 2,
                        .num_attention_heads = 6,
                        .num_key_value_heads = 2,
                        .intermediate_size = 14,
                        .rms_norm_eps = 1e-5,
                        .rope_theta = 5000.0};
  if (family == "llama") {
    o.tie_word_embeddings = true;
    return o;
  }
  moe::TopKOptions router{.top_k = 2};
  model::MoeOptions moe{.num_experts = 5, .moe_intermediate_size = 7};
  if (family == "qwen2_moe") {
    moe.num_shared_experts = 1;
    moe.shared_expert_intermediate_size = 9;
    moe.shared_expert_gate = true;
  }
  if (family == "qwen2_moe" || family == "olmoe") {
    router.top_k = 3;
    router.norm_topk_prob = false;
  }
  if (family == "olmoe") o.qk_norm = nn::QkNorm::kFull;
  if (family == "qwen3_moe" || family == "glm4_moe") {
    o.num_hidden_layers = 3;
    o.head_dim = 10;
    o.qk_norm = nn::QkNorm::kHead;
  }
  if (family == "qwen3_moe") moe.decoder_sparse_step = 2;
  if (family == "glm4_moe") {
    moe.first_k_dense_replace = 1;
    moe.num_shared_experts = 2;
    router.score_function = moe::ScoreFunction::kSigmoid;
    router.routed_scaling_factor = 2.5;
  }
  moe.router = {"topk", router};
  o.moe = moe;
  return o;
}

data::Batch batch_of(const at::Tensor& tokens_BS) {
  data::Batch batch;
  batch.num_sequences = tokens_BS.size(0);
  batch.seq_length = tokens_BS.size(1);
  const int64_t* token = tokens_BS.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < batch.size(); ++i) {
    const int64_t column = i % batch.seq_length;
    const bool last = column + 1 == batch.seq_length;
    batch.token.push_back(static_cast<int32_t>(token[i]));
    batch.target.push_back(last ? -1 : static_cast<int32_t>(token[i + 1]));
    batch.document.push_back(0);
    batch.position.push_back(static_cast<int32_t>(column));
    batch.domain.push_back(0);
    batch.global_id.push_back(i);
    batch.num_targets += last ? 0 : 1;
  }
  batch.num_tokens = batch.size();
  return batch;
}

void expect_close(const at::Tensor& got, const at::Tensor& want, const std::string& what) {
  ASSERT_EQ(got.sizes(), want.sizes()) << what;
  const double scale = std::max(want.abs().max().item<double>(), 1e-3);
  EXPECT_LE(got.sub(want).abs().max().item<double>(), 1e-9 * scale) << what;
}

class TransformersOracle : public ::testing::TestWithParam<const char*> {
 protected:
  // All families in one go: importing the library takes seconds.
  static void SetUpTestSuite() {
    const char* chosen = std::getenv("CONCLAVE_PYTHON");
    const std::string python = chosen ? chosen : "python3";
    const std::string script = CONCLAVE_SOURCE_DIR "/tests/train/hf_oracle.py";
    if (std::system(fmt::format("'{}' '{}' --probe 2>/dev/null", python, script).c_str()) != 0) return;
    folder_ = new train::TemporaryFolder;
    const auto log = *folder_ / "log.txt";
    const int status = std::system(
        fmt::format("'{}' '{}' '{}' 2>'{}'", python, script, folder_->path().string(), log.string()).c_str());
    ASSERT_EQ(status, 0) << read_file(log);
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static train::TemporaryFolder* folder_;
};
train::TemporaryFolder* TransformersOracle::folder_ = nullptr;

TEST_P(TransformersOracle, logits_losses_and_every_gradient_are_equal) {
  if (!folder_)
    GTEST_SKIP() << "no transformers 5 for python3; set CONCLAVE_PYTHON to an interpreter that has it";
  const std::string family = GetParam();
  const train::SafetensorsFile file(*folder_ / (family + ".safetensors"));
  const auto options = options_of(family);
  model::LanguageModel m(options, 31, moe::builtin(), 1, at::kDouble);
  const auto parameters = nn::tagged_parameters(m);
  size_t used = 0;
  {
    const c10::NoGradGuard no_grad;
    for (const auto& parameter : parameters) {
      for (const auto& s : train::logical_slices(parameter, parameter.tensor)) {
        s.tensor.copy_(read_tensor(file, checkpoint_name(family, s.name)));
        used += 2;  // the value here, the gradient below
      }
    }
    for (const auto& buffer : train::named_buffers(m)) {
      if (family != "glm4_moe") continue;
      buffer.tensor.copy_(read_tensor(file, checkpoint_name(family, buffer.name)));
      used += 1;
    }
  }

  const auto batch = batch_of(read_tensor(file, "tokens"));
  moe::ForwardContext context;
  expect_close(m.logits(batch, context), read_tensor(file, "logits"), "logits");
  context.traces.clear();
  const auto loss = m.loss(batch, context).sum.div(static_cast<double>(batch.num_targets));
  expect_close(loss, read_tensor(file, "loss"), "loss");
  used += 3;

  // Their load-balancing loss is k times ours (f sums to k there, to 1 here) and pools the tokens of all
  // layers, where ours is taken per layer and summed; with one MoE layer the two pools are the same.
  auto objective = loss;
  if (file.contains("aux_per_layer")) {
    const auto balancing = moe::load_balancing_entry().make(moe::LoadBalancingOptions{});
    const double k = options.moe->router.options.as<moe::TopKOptions>().top_k;
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (const auto& trace : context.traces) {
      sum = sum.add(
          balancing->share(trace, {.num_tokens = batch.num_tokens, .num_targets = batch.num_targets}));
    }
    expect_close(sum.mul(k), read_tensor(file, "aux_per_layer"), "aux_per_layer");
    if (context.traces.size() == 1) expect_close(sum.mul(k), read_tensor(file, "aux_pooled"), "aux_pooled");
    objective = objective.add(sum, k * kAuxWeight);
    used += 2;
  }
  objective.backward();
  for (const auto& parameter : parameters) {
    for (const auto& s : train::logical_slices(parameter, parameter.tensor.grad())) {
      expect_close(s.tensor, read_tensor(file, "grad:" + checkpoint_name(family, s.name)), s.name);
    }
  }
  EXPECT_EQ(file.names().size(), used) << "a tensor of the other model has no counterpart here";
}

INSTANTIATE_TEST_SUITE_P(Families, TransformersOracle,
                         ::testing::Values("llama", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "glm4_moe"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
