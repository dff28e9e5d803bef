// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/routing_counts.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "conclave/analyze/information.h"
#include "conclave/core/error.h"

namespace conclave::analyze {

namespace {

// Row of the batch that a unit is, or -1 where units are not tokens.
class RowOfUnit {
 public:
  explicit RowOfUnit(const moe::UnitMap& units) : is_token_(units.kind == moe::UnitKind::kToken) {
    if (units.row_of_unit_U.defined()) rows_ = units.row_of_unit_U.cpu().contiguous();
  }
  int64_t operator()(int64_t unit) const {
    if (!is_token_) return -1;
    return rows_.defined() ? rows_.const_data_ptr<int64_t>()[unit] : unit;
  }

 private:
  bool is_token_;
  at::Tensor rows_;
};

at::Tensor as_double(const at::Tensor& t) {
  return t.detach().to(at::kCPU, at::kDouble).contiguous();
}

}  // namespace

LayerCounts::LayerCounts(int layer, size_t num_experts, size_t num_domains, size_t num_tokens)
    : layer_(layer),
      num_experts_(num_experts),
      num_domains_(num_domains),
      num_tokens_(num_tokens),
      requested_E_(num_experts, 0.0),
      kept_E_(num_experts, 0.0),
      domain_ED_(num_experts * num_domains, 0.0),
      token_VE_(num_tokens * num_experts, 0.0) {}

void LayerCounts::add(const moe::RouterTrace& trace, const data::Batch& batch) {
  CONCLAVE_CHECK(static_cast<size_t>(trace.plan.num_experts) == num_experts_,
                 "LayerCounts: the number of experts changed during an evaluation");
  add_plan(trace.plan, batch);
  if (trace.probs_UE.defined()) add_entropy(trace.probs_UE);
}

void LayerCounts::add_share(int64_t row, int64_t expert, double amount, bool kept, const data::Batch& batch) {
  const auto e = static_cast<size_t>(expert);
  requested_E_[e] += amount;
  if (kept) kept_E_[e] += amount;
  if (row < 0) return;
  const int32_t domain = batch.domain.at(static_cast<size_t>(row));
  if (domain >= 0 && num_domains_ > 0) {
    domain_ED_[e * num_domains_ + std::min(static_cast<size_t>(domain), num_domains_ - 1)] += amount;
  }
  const auto token = static_cast<size_t>(batch.token.at(static_cast<size_t>(row)));
  if (token < num_tokens_) token_VE_[token * num_experts_ + e] += amount;
}

void LayerCounts::add_plan(const moe::RoutingPlan& plan, const data::Batch& batch) {
  const RowOfUnit row_of(plan.units);
  if (const auto* sparse = std::get_if<moe::SparsePlan>(&plan.body)) {
    const auto units = sparse->unit_N.cpu(), experts = sparse->expert_N.cpu(),
               rows = sparse->row_of_pair_N.cpu();
    const auto* unit_N = units.const_data_ptr<int32_t>();
    const auto* expert_N = experts.const_data_ptr<int32_t>();
    const auto* row_N = rows.const_data_ptr<int32_t>();
    for (int64_t n = 0; n < units.numel(); ++n) {
      if (expert_N[n] < 0) continue;  // no pair
      add_share(row_of(unit_N[n]), expert_N[n], 1.0, row_N[n] >= 0, batch);
    }
    return;
  }
  unit_ = RoutingUnit::kMass;
  if (const auto* slots = std::get_if<moe::SlotPlan>(&plan.body)) {
    const auto combine_GML = as_double(slots->combine_GML);
    const auto unit_GM = slots->unit_of_group_GM.cpu().contiguous(),
               slot_expert_L = slots->slot_expert_L.cpu();
    const double* combine = combine_GML.const_data_ptr<double>();
    const auto* expert_L = slot_expert_L.const_data_ptr<int32_t>();
    const int64_t num_slots = slots->slot_expert_L.numel();
    for (int64_t gm = 0; gm < unit_GM.numel(); ++gm) {
      const int64_t unit = unit_GM.const_data_ptr<int64_t>()[gm];
      if (unit < 0) continue;
      for (int64_t l = 0; l < num_slots; ++l) {
        add_share(row_of(unit), expert_L[l], std::abs(combine[gm * num_slots + l]), true, batch);
      }
    }
    return;
  }
  const auto weight_UE = as_double(std::get<moe::MixPlan>(plan.body).weight_UE);
  const double* weight = weight_UE.const_data_ptr<double>();
  for (int64_t i = 0; i < weight_UE.numel(); ++i) {
    add_share(row_of(i / plan.num_experts), i % plan.num_experts, std::abs(weight[i]), true, batch);
  }
}

void LayerCounts::add_entropy(const at::Tensor& probs_UE) {
  const auto probs = as_double(probs_UE);
  if (probs.dim() != 2 || probs.size(1) != static_cast<int64_t>(num_experts_)) return;
  const double* p = probs.const_data_ptr<double>();
  for (int64_t u = 0; u < probs.size(0); ++u) {
    entropy_sum_ += normalised_entropy({p + static_cast<size_t>(u) * num_experts_, num_experts_});
  }
  num_entropies_ += probs.size(0);
}

std::vector<TokenAmount> LayerCounts::top_tokens(size_t expert, bool distinctive,
                                                 const data::Tokenizer& tokenizer, size_t count) const {
  std::vector<double> token_sum_V(num_tokens_, 0.0);
  double expert_sum = 0, sum = 0;
  for (size_t i = 0; i < token_VE_.size(); ++i) {
    token_sum_V[i / num_experts_] += token_VE_[i];
    if (i % num_experts_ == expert) expert_sum += token_VE_[i];
    sum += token_VE_[i];
  }
  std::vector<std::pair<double, int32_t>> ranked;  // largest score first, then the lower token id
  for (size_t v = 0; v < num_tokens_; ++v) {
    const double amount = token_VE_[v * num_experts_ + expert];
    const double score = distinctive ? information_of_cell(amount, token_sum_V[v], expert_sum, sum) : amount;
    if (score > 0) ranked.emplace_back(-score, static_cast<int32_t>(v));
  }
  count = std::min(count, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(count), ranked.end());
  std::vector<TokenAmount> tokens;
  for (size_t i = 0; i < count; ++i) {
    const int32_t token = ranked[i].second;
    const auto v = static_cast<size_t>(token);
    const double amount = token_VE_[v * num_experts_ + expert];
    tokens.push_back({.token = token,
                      .bytes = tokenizer.decode({&token, 1}),
                      .amount = amount,
                      .share = amount / token_sum_V[v]});
  }
  return tokens;
}

LayerRecord LayerCounts::record(const data::Tokenizer& tokenizer, size_t tokens_per_expert) const {
  LayerRecord record{.layer = layer_, .unit = unit_};
  if (num_entropies_ > 0) record.router_entropy = entropy_sum_ / static_cast<double>(num_entropies_);
  if (num_tokens_ > 0) record.token_information_bits = mutual_information_bits(token_VE_, num_experts_);
  for (size_t e = 0; e < num_experts_; ++e) {
    const auto begin = domain_ED_.begin() + static_cast<std::ptrdiff_t>(e * num_domains_);
    record.experts.push_back(
        {.requested = requested_E_[e],
         .kept = kept_E_[e],
         .by_domain = {begin, begin + static_cast<std::ptrdiff_t>(num_domains_)},
         .frequent = top_tokens(e, /*distinctive=*/false, tokenizer, tokens_per_expert),
         .distinctive = top_tokens(e, /*distinctive=*/true, tokenizer, tokens_per_expert)});
  }
  return record;
}

}  // namespace conclave::analyze
