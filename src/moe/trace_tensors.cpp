// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/trace_tensors.h"

namespace conclave::moe {

namespace {

std::vector<at::Tensor*> defined(std::vector<at::Tensor*> tensors) {
  std::erase_if(tensors, [](const at::Tensor* t) { return !t->defined(); });
  return tensors;
}

}  // namespace

std::vector<at::Tensor*> differentiable(RouterTrace& trace) {
  std::vector<at::Tensor*> found{&trace.logits_UE, &trace.probs_UE};
  for (auto& item : trace.tensors) found.push_back(&item.second);
  if (auto* sparse = std::get_if<SparsePlan>(&trace.plan.body)) {
    found.push_back(&sparse->weight_N);
  } else if (auto* slots = std::get_if<SlotPlan>(&trace.plan.body)) {
    found.push_back(&slots->dispatch_GML);
    found.push_back(&slots->combine_GML);
  } else {
    found.push_back(&std::get<MixPlan>(trace.plan.body).weight_UE);
  }
  return defined(std::move(found));
}

std::vector<at::Tensor*> beside_differentiable(RouterTrace& trace) {
  std::vector<at::Tensor*> found{&trace.non_finite};
  if (auto* p = std::get_if<SparsePlan>(&trace.plan.body)) {
    for (auto* t : {&p->unit_N, &p->expert_N, &p->choice_N, &p->unit_offsets_U1, &p->row_of_pair_N,
                    &p->pair_of_row_A, &p->expert_offsets_E1, &p->requested_E, &p->kept_E})
      found.push_back(t);
  } else if (auto* slots = std::get_if<SlotPlan>(&trace.plan.body)) {
    for (auto* t : {&slots->unit_of_group_GM, &slots->place_of_unit_U, &slots->slot_expert_L})
      found.push_back(t);
  }
  return defined(std::move(found));
}

}  // namespace conclave::moe
