// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

// Legend: R rows of the layer's input (tokens with padding), U units (what is routed), E experts, K choices
// per unit, N pairs (unit, expert) that were requested, A expert rows = pairs that were kept, G groups, M
// units per group, L slots.
namespace conclave::moe {

enum class UnitKind { kToken, kSubToken, kSequence, kTask };

// Who is routed. Padding rows belong to no unit: they are never routed and never counted.
struct UnitMap {
  UnitKind kind = UnitKind::kToken;
  int64_t num_rows = 0;
  int64_t num_units = 0;
  at::Tensor row_of_unit_U = {};       // int64; undefined: unit u is row u
  at::Tensor sequence_of_unit_U = {};  // int64, index of the sequence inside the micro-batch
  // On the host, wherever the rows are: what is decided there.
  at::Tensor group_of_unit_U = {};  // int64, for gates that look at a whole group (one document); ascending
  at::Tensor global_id_U = {};      // int64, keys the random numbers of a unit
  int64_t num_sequences = 0;
};

// Token choice, expert choice, hash, ...: a list of (unit, expert) pairs. Pairs are sorted by unit and inside
// a unit by choice; that is also the order in which a unit's expert outputs are summed. Expert rows are
// sorted by (expert, slot). Where a router might have chosen and did not (a masked logit, a second expert
// left out by chance) there is a pair with expert -1: it has no row and no weight, and nobody counts it.
struct SparsePlan {
  at::Tensor unit_N = {}, expert_N = {}, choice_N = {};  // int32
  at::Tensor weight_N = {};                              // floating; the only differentiable member
  at::Tensor unit_offsets_U1 = {};                       // [U + 1] int32: the pairs of unit u
  at::Tensor row_of_pair_N = {};      // int32, expert row of a pair, -1: dropped by capacity, or no pair
  at::Tensor pair_of_row_A = {};      // int32, -1 behind the last expert's rows
  at::Tensor expert_offsets_E1 = {};  // [E + 1] int32, rows of expert e
  at::Tensor requested_E = {}, kept_E = {};  // int64 counts before and after capacity
  int64_t capacity = 0;                      // rows that an expert may have; 0: no limit
  bool padded = false;                       // every expert has so many (padded_to_capacity)
};

// Soft MoE: every slot is a mixture of a group's units, every unit a mixture of its group's slots.
struct SlotPlan {
  at::Tensor dispatch_GML = {},
             combine_GML = {};       // floating, differentiable; zero rows for units a group does not have
  at::Tensor unit_of_group_GM = {};  // int64, -1: no such unit
  at::Tensor place_of_unit_U = {};   // int64, g * M + m
  at::Tensor slot_expert_L = {};     // int32, non-decreasing
};

// A dense weight for every expert: DSelect-k, classical mixtures. Exact zeros are skipped.
struct MixPlan {
  at::Tensor weight_UE = {};  // [U, E] floating, differentiable
};

struct RoutingPlan {
  UnitMap units = {};
  int64_t num_experts = 0;
  std::variant<SparsePlan, SlotPlan, MixPlan> body = {};
};

// Builds a SparsePlan out of pairs sorted by (unit, choice). kept_N: uint8, undefined keeps all. requested_E:
// int64, how often each expert stands in expert_N; undefined: it is counted.
SparsePlan make_sparse_plan(int64_t num_units, int64_t num_experts, at::Tensor unit_N, at::Tensor expert_N,
                            at::Tensor choice_N, at::Tensor weight_N, const at::Tensor& kept_N,
                            at::Tensor requested_E = {});

// The plan with `capacity` rows for every expert, [E * capacity] in all: where pairs are missing a row is
// nobody's (pair_of_row_A -1). What is moved then depends on no value. The counts are those of the pairs.
SparsePlan padded_to_capacity(const SparsePlan& plan, int64_t num_experts);

// [A] int32: the unit that expert row a is made from; some unit behind the last expert's rows.
at::Tensor unit_of_row(const SparsePlan& plan);

// The pairs of a MixPlan with non-zero weight. Exact for gates whose derivative vanishes with the weight (the
// smooth step of DSelect-k), which is what MixPlan promises.
SparsePlan to_sparse(const MixPlan& plan, int64_t num_experts);

}  // namespace conclave::moe
