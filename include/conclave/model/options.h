// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "conclave/config/fields.h"
#include "conclave/data/masking.h"
#include "conclave/moe/layer.h"
#include "conclave/nn/layers.h"

namespace conclave::model {

enum class HiddenAct { kSilu };
enum class DispatcherType { kAuto, kLocal, kAllGather, kAllToAll };

// `model.moe.dispatcher`: how tokens reach the rank of their expert.
struct DispatcherOptions {
  DispatcherType type = DispatcherType::kAuto;
  moe::ExpertPlacement placement = moe::ExpertPlacement::kStatic;
  std::optional<int64_t> rank_budget = {};
  moe::OnOverflow on_overflow = moe::OnOverflow::kError;
  bool pad_to_capacity = false;
  void fields(config::Fields& f);
};

// `model.moe`: which layers are MoE layers, and of what.
struct MoeOptions {
  int64_t num_experts = 8;
  int64_t moe_intermediate_size = 256;
  int64_t first_k_dense_replace = 0;
  int64_t decoder_sparse_step = 1;
  std::optional<std::vector<int64_t>> layers = {};
  int64_t num_shared_experts = 0;
  std::optional<int64_t> shared_expert_intermediate_size = {};
  bool shared_expert_gate = false;
  bool allow_noncausal = false;       // written beside the router's options
  bool allow_cross_document = false;  // likewise
  config::Plugin router = {.type = "topk", .options = {}};
  std::vector<config::Plugin> aux_losses = {};
  config::Plugin balance_update = {.type = "none", .options = {}};
  DispatcherOptions dispatcher = {};
  bool cuda_graph = false;
  void fields(config::Fields& f);

  // Inner width of all shared experts together; 0: none.
  int64_t shared_width() const;
};

// What the model learns to predict: the next token, or tokens that were hidden from it.
enum class Objective { kCausalLm, kMaskedLm };

// `model`: a transformer in the terms of a Hugging Face config.json.
struct ModelOptions {
  Objective objective = Objective::kCausalLm;
  data::MaskingOptions masking = {};       // kMaskedLm
  std::optional<int64_t> vocab_size = {};  // auto: from the tokenizer
  int64_t hidden_size = 256;
  int64_t num_hidden_layers = 4;
  int64_t num_attention_heads = 4;
  int64_t num_key_value_heads = 4;
  std::optional<int64_t> head_dim = {};
  int64_t intermediate_size = 512;
  HiddenAct hidden_act = HiddenAct::kSilu;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  nn::QkNorm qk_norm = nn::QkNorm::kNone;
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  std::optional<MoeOptions> moe = {};
  void fields(config::Fields& f);

  int64_t head_width() const { return head_dim.value_or(hidden_size / num_attention_heads); }
  bool is_moe_layer(int64_t layer) const;
  // Rows of the embedding for a tokenizer with this many ids; masked_lm adds one, the mask's, behind them.
  // Throws Error when `vocab_size` is too small.
  int64_t embedding_rows(int64_t tokenizer_vocab_size) const;
};

}  // namespace conclave::model
