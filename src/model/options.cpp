// SPDX-License-Identifier: Apache-2.0
#include "conclave/model/options.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/config/wrapped.h"
#include "conclave/core/error.h"

namespace conclave::model {

void MoeOptions::fields(config::Fields& f) {
  f("num_experts", num_experts, "Routed experts per layer.")
      .min(1)
      .alias("num_local_experts")
      .alias("n_routed_experts")
      .alias("num_moe_experts");
  f("moe_intermediate_size", moe_intermediate_size, "Inner width of one expert.")
      .min(1)
      .alias("moe_ffn_hidden_size");
  f("first_k_dense_replace", first_k_dense_replace, "The first k layers are dense.").min(0);
  f("decoder_sparse_step", decoder_sparse_step, "Of the others, every n-th layer is an MoE layer.").min(1);
  f("layers", layers, "Explicit list of MoE layers (0-based); replaces the two keys above.");
  f("num_shared_experts", num_shared_experts, "Experts that every token uses.")
      .min(0)
      .alias("n_shared_experts");
  f("shared_expert_intermediate_size", shared_expert_intermediate_size,
    "Inner width of all shared experts together; null: num_shared_experts * moe_intermediate_size.")
      .min(1)
      .only_if([this] { return num_shared_experts > 0; }, "num_shared_experts is 0");
  f("shared_expert_gate", shared_expert_gate, "Multiply the shared experts by a learned sigmoid gate.")
      .only_if([this] { return num_shared_experts > 0; }, "num_shared_experts is 0");
  config::beside_options(f.plugin("router", router, "routers", "Who goes to which expert."), [this](
                                                                                                 config::
                                                                                                     Fields&
                                                                                                         g) {
    g("allow_noncausal", allow_noncausal,
      "Accept a router that looks at later tokens although the model predicts them.");
    g("allow_cross_document", allow_cross_document,
      "Accept a router that compares tokens of several documents although packing puts them side by side.");
  });
  f.plugin("balance_update", balance_update, "balance_updates",
           "Changes of the selection bias outside the gradient.");
  f.plugins("aux_losses", aux_losses, "aux_losses", "Terms added to the objective for every MoE layer.");
  f("dispatcher", dispatcher, "How tokens reach their experts.");
  f("cuda_graph", cuda_graph,
    "On a GPU: the training pass of each MoE layer is recorded once, forward and backward, and replayed with "
    "two launches. For routers that draw nothing at random and follow no schedule.");
}

void DispatcherOptions::fields(config::Fields& f) {
  f("type", type,
    {{"auto", DispatcherType::kAuto},
     {"local", DispatcherType::kLocal},
     {"all_gather", DispatcherType::kAllGather},
     {"all_to_all", DispatcherType::kAllToAll}},
    "local: all experts are on this rank; all_to_all: every token goes to the ranks of its experts, and "
    "back; all_gather: every token goes to all ranks that share the experts; "
    "auto: local with parallelism.expert_parallel_size 1, else which of the two moves fewer bytes.");
  f("placement", placement,
    {{"static", moe::ExpertPlacement::kStatic}, {"round_robin", moe::ExpertPlacement::kRoundRobin}},
    "Which rank holds expert e of E on P ranks. static: e / (E / P), neighbours together; round_robin: e mod "
    "P.");
  f("rank_budget", rank_budget,
    "Rows (pairs of token and expert) that one rank may get in a layer and micro-batch of training; null: no "
    "limit.")
      .min(1);
  f("on_overflow", on_overflow,
    {{"error", moe::OnOverflow::kError},
     {"drop", moe::OnOverflow::kDrop},
     {"rerun", moe::OnOverflow::kRerun}},
    "A rank would get more than rank_budget. error: the run ends; drop: the pairs that come last are "
    "dropped, "
    "which depends on which experts share a rank; rerun: the step is repeated with a budget that is enough.")
      .only_if([this] { return rank_budget.has_value(); }, "rank_budget is null");
  f("pad_to_capacity", pad_to_capacity,
    "all_to_all: each rank sends every expert as many rows as its capacity, empty ones too; nobody waits for "
    "counts, and shapes are the same in every step.")
      .alias("moe_pad_expert_input_to_capacity");
}

int64_t MoeOptions::shared_width() const {
  return shared_expert_intermediate_size.value_or(num_shared_experts * moe_intermediate_size);
}

void ModelOptions::fields(config::Fields& f) {
  f("objective", objective, {{"causal_lm", Objective::kCausalLm}, {"masked_lm", Objective::kMaskedLm}},
    "causal_lm: predict the next token; masked_lm: predict hidden tokens from both sides (an encoder).");
  f("masking", masking, "Which tokens masked_lm hides, and how.")
      .only_if([this] { return objective == Objective::kMaskedLm; }, "model.objective is causal_lm");
  config::or_auto(f("vocab_size", vocab_size, "Rows of the embedding; auto: what the tokenizer needs."))
      .min(1);
  f("hidden_size", hidden_size, "Model width.").min(1);
  f("num_hidden_layers", num_hidden_layers, "Transformer blocks.").min(1);
  f("num_attention_heads", num_attention_heads, "Query heads.").min(1);
  f("num_key_value_heads", num_key_value_heads,
    "Key and value heads; fewer than query heads: grouped-query attention.")
      .min(1);
  f("head_dim", head_dim, "Width of a head; null: hidden_size / num_attention_heads.").min(2);
  f("intermediate_size", intermediate_size, "Inner width of dense layers.").min(1);
  f("hidden_act", hidden_act, {{"silu", HiddenAct::kSilu}}, "Activation of the gated feed-forward layers.");
  f("rms_norm_eps", rms_norm_eps, "Added to the mean square in every norm.").positive();
  f("rope_theta", rope_theta, "Base of the rotary position angles.").positive();
  f("qk_norm", qk_norm,
    {{"none", nn::QkNorm::kNone}, {"head", nn::QkNorm::kHead}, {"full", nn::QkNorm::kFull}},
    "RMSNorm of queries and keys: per head, or over all heads.");
  f("tie_word_embeddings", tie_word_embeddings, "The head uses the embedding's matrix.");
  f("initializer_range", initializer_range, "Standard deviation of the initial matrices.").positive();
  f("moe", moe, "MoE layers; absent: a dense model.");
  f.check([this](config::Check& check) {
    if (num_attention_heads % num_key_value_heads != 0) {
      check.error("num_key_value_heads",
                  fmt::format("{} query heads cannot share {} key/value heads evenly", num_attention_heads,
                              num_key_value_heads),
                  "use a divisor of num_attention_heads");
    }
    if (!head_dim && hidden_size % num_attention_heads != 0) {
      check.error(
          "num_attention_heads",
          fmt::format("hidden_size {} is not divisible by {} heads", hidden_size, num_attention_heads),
          "set head_dim, or change one of the two");
    }
    if (head_width() % 2 != 0) {
      check.error("head_dim", fmt::format("rotary positions need an even head width, got {}", head_width()),
                  "choose an even head_dim");
    }
    if (!moe || !moe->layers) return;
    for (const int64_t layer : *moe->layers) {
      if (layer < 0 || layer >= num_hidden_layers) {
        check.error("moe.layers", fmt::format("layer {} does not exist", layer),
                    fmt::format("layers are 0 to {}", num_hidden_layers - 1));
      }
    }
  });
}

bool ModelOptions::is_moe_layer(int64_t layer) const {
  if (!moe) return false;
  if (moe->layers) return std::find(moe->layers->begin(), moe->layers->end(), layer) != moe->layers->end();
  return layer >= moe->first_k_dense_replace && (layer + 1) % moe->decoder_sparse_step == 0;
}

int64_t ModelOptions::embedding_rows(int64_t tokenizer_vocab_size) const {
  const bool masked = objective == Objective::kMaskedLm;
  const int64_t needed = tokenizer_vocab_size + (masked ? 1 : 0);
  const int64_t rows = vocab_size.value_or(needed);
  if (rows < needed) {
    throw Error(
        fmt::format("model.vocab_size is {}, but the tokenizer has {} ids{}; leave it out or set at "
                    "least {}",
                    rows, tokenizer_vocab_size, masked ? " and masked_lm needs one more" : "", needed));
  }
  return rows;
}

}  // namespace conclave::model
