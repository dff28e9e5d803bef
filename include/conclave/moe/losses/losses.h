// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/moe/loss.h"

namespace conclave::moe {

enum class BalanceScope { kMicroBatch, kSequence, kGlobalBatch };
enum class BalanceChoices { kAll, kFirst };
enum class BalanceCounts { kRequested, kScoresTopK };

// Load balancing E sum_e f_e P_e over the tokens of a scope; padding never counts. Scope micro_batch: the
// mean over the step's micro-batches; sequence: the mean over the step's sequences; global_batch: all tokens
// of the step as one. Summed over MoE layers.
//   choices  all, or the first of each token (GShard, Lepikhin et al., 2020)
//   counts   requested: what the router selected, before capacity drops; scores_topk: the k best scores,
//            whatever bias or group limit selected (DeepSeek-V3, 2024)
struct LoadBalancingOptions {
  config::Value weight = 0.01;
  BalanceScope scope = BalanceScope::kMicroBatch;
  BalanceChoices choices = BalanceChoices::kAll;
  BalanceCounts counts = BalanceCounts::kRequested;
  void fields(config::Fields& f);
};
AuxLossEntry load_balancing_entry();

struct ZLossOptions {
  config::Value weight = 0.001;
  void fields(config::Fields& f);
};
AuxLossEntry z_loss_entry();

// The two losses of noisy top-k (Shazeer et al., 2017), squared coefficients of variation
// CV^2(v) = var(v) / (mean(v)^2 + 1e-10) with the population variance; the mean over the step's
// micro-batches. The epsilon changes the value where the mean is below about 1e-4 only, and makes CV^2 of
// nothing 0.
enum class ImportanceOf { kWeights, kProbs };

// CV^2 of the experts' importance: the sum over tokens of their combine weights (eq. 6, 7), or of their
// scores over all experts (V-MoE, Riquelme et al., 2021).
struct ImportanceOptions {
  config::Value weight = 0.1;
  ImportanceOf importance_of = ImportanceOf::kWeights;
  void fields(config::Fields& f);
};
AuxLossEntry importance_entry();

// CV^2 of the experts' smooth load (eq. 8 to 11): the sum over tokens of the probability that an expert would
// be among the k, were only its own noise drawn again: Phi((z - threshold) / sigma). Needs noise.
struct LoadOptions {
  config::Value weight = 0.1;
  void fields(config::Fields& f);
};
AuxLossEntry load_entry();

at::Tensor squared_variation(const at::Tensor& values_E);  // CV^2 as above, 0-dim

// [U, E]: the probability above. Where sigma is 0 or the difference infinite it is 0 or 1, without gradient.
at::Tensor selection_probability(const at::Tensor& clean_UE, const at::Tensor& threshold_UE,
                                 const at::Tensor& sigma_UE);

}  // namespace conclave::moe
