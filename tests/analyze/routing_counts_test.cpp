// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/routing_counts.h"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

namespace {

using namespace conclave;
using namespace conclave::analyze;

// Two sequences of five positions; the last two of the second are padding.
data::Batch example_batch() {
  return {.num_sequences = 2,
          .seq_length = 5,
          .token = {7, 65, 65, 32, 256, 7, 65, 32, 0, 0},
          .target = std::vector<int32_t>(10, 1),
          .document = {0, 0, 0, 0, 1, 0, 0, 0, -1, -1},
          .position = {0, 1, 2, 3, 0, 0, 1, 2, 0, 0},
          .domain = {0, 0, 0, 0, 1, 2, 2, 2, -1, -1},
          .global_id = {0, 1, 2, 3, 4, 5, 6, 7, -1, -1},
          .num_tokens = 8,
          .num_targets = 8};
}

moe::UnitMap example_units() {
  return {.num_rows = 10, .num_units = 8, .row_of_unit_U = at::tensor({0, 1, 2, 3, 4, 5, 6, 7}, at::kLong)};
}

// Unit u asks for experts u % 3 and 2; every second pair is dropped.
moe::RouterTrace sparse_trace() {
  std::vector<int32_t> unit, expert, choice;
  std::vector<uint8_t> kept;
  for (int32_t u = 0; u < 8; ++u) {
    for (int32_t k = 0; k < (u % 3 == 2 ? 1 : 2); ++k) {
      unit.push_back(u);
      expert.push_back(k == 0 ? u % 3 : 2);
      choice.push_back(k);
      kept.push_back(unit.size() % 2);
    }
  }
  moe::RouterTrace trace{.layer = 3};
  trace.plan = {.units = example_units(), .num_experts = 4};
  const auto weight = at::tensor(std::vector<float>(unit.size(), 0.5f));
  trace.plan.body = moe::make_sparse_plan(8, 4, at::tensor(unit, at::kInt), at::tensor(expert, at::kInt),
                                          at::tensor(choice, at::kInt), weight, at::tensor(kept, at::kByte));
  return trace;
}

LayerRecord record_of(const moe::RouterTrace& trace, size_t num_domains = 3, size_t num_tokens = 257) {
  LayerCounts counts(trace.layer, static_cast<size_t>(trace.plan.num_experts), num_domains, num_tokens);
  counts.add(trace, example_batch());
  return counts.record(*data::byte_tokenizer(), 3);
}

std::vector<double> requested(const LayerRecord& record) {
  std::vector<double> result;
  for (const auto& e : record.experts) result.push_back(e.requested);
  return result;
}

TEST(RoutingCounts, PairsAreCountedOnceBeforeAndAfterCapacityByDomainAndToken) {
  const auto record = record_of(sparse_trace());
  EXPECT_EQ(record.layer, 3);
  EXPECT_EQ(record.unit, RoutingUnit::kPairs);
  EXPECT_EQ(requested(record), (std::vector<double>{3, 3, 8, 0}));  // units 0 3 6 | 1 4 7 | all | none
  double kept = 0;
  for (const auto& e : record.experts) kept += e.kept;
  EXPECT_EQ(kept, 7);
  EXPECT_EQ(record.experts[0].by_domain, (std::vector<double>{2, 0, 1}));  // units 0, 3 and 6
  EXPECT_EQ(record.experts[1].by_domain, (std::vector<double>{1, 1, 1}));
  EXPECT_EQ(record.experts[2].by_domain, (std::vector<double>{4, 1, 3}));
  const auto& frequent = record.experts[2].frequent;
  ASSERT_EQ(frequent.size(), 3u);
  EXPECT_EQ(frequent[0].token, 65);  // units 1, 2, 6
  EXPECT_EQ(frequent[0].amount, 3);
  EXPECT_EQ(frequent[0].share, 0.6);  // of five: unit 1 also asks for expert 1, unit 6 for expert 0
  EXPECT_EQ(frequent[0].bytes, "A");
  EXPECT_EQ(frequent[1].token, 7) << "equal amounts: the lower id first";
  const auto& marks = record.experts[1].distinctive;
  EXPECT_TRUE(std::any_of(marks.begin(), marks.end(),
                          [](const TokenAmount& t) { return t.token == 256 && t.bytes.empty(); }));
  EXPECT_TRUE(record.experts[3].frequent.empty());
  ASSERT_TRUE(record.token_information_bits.has_value());
  EXPECT_GT(*record.token_information_bits, 0.0);
}

TEST(RoutingCounts, LargeVocabulariesAndManyDomainsAreBounded) {
  const auto record = record_of(sparse_trace(), 2, 0);
  EXPECT_EQ(record.experts[0].by_domain, (std::vector<double>{2, 1})) << "domain 2 is added up in the last";
  EXPECT_TRUE(record.experts[0].frequent.empty());
  EXPECT_FALSE(record.token_information_bits.has_value());
}

TEST(RoutingCounts, SlotsAndMixturesCountTheMagnitudeOfTheirCombineWeights) {
  moe::RouterTrace mix{.layer = 0};
  mix.plan = {.units = {.num_rows = 10, .num_units = 2, .row_of_unit_U = at::tensor({4, 6}, at::kLong)},
              .num_experts = 3};
  mix.plan.body = moe::MixPlan{.weight_UE = at::tensor({0.5, -0.25, 0.0, 0.125, 0.0, 1.0}).view({2, 3})};
  const auto mixture = record_of(mix);
  EXPECT_EQ(mixture.unit, RoutingUnit::kMass);
  EXPECT_EQ(requested(mixture), (std::vector<double>{0.625, 0.25, 1.0}));
  EXPECT_EQ(mixture.experts[0].by_domain, (std::vector<double>{0, 0.5, 0.125}));

  moe::RouterTrace slots{.layer = 1};
  slots.plan = {.units = {.num_rows = 10, .num_units = 3}, .num_experts = 2};
  slots.plan.body = moe::SlotPlan{
      .combine_GML =
          at::tensor({0.5, 0.25, 0.25, 0.0, 0.5, 0.5, 1.0, 0.0, 0.0, 9.0, 9.0, 9.0}).view({2, 2, 3}),
      .unit_of_group_GM = at::tensor({0, 1, 2, -1}, at::kLong).view({2, 2}),
      .slot_expert_L = at::tensor({0, 0, 1}, at::kInt)};
  const auto slot_record = record_of(slots);
  EXPECT_EQ(requested(slot_record), (std::vector<double>{2.25, 0.75}))
      << "a unit that is absent counts nothing";
  EXPECT_EQ(slot_record.experts[0].by_domain, (std::vector<double>{2.25, 0, 0}));
}

TEST(RoutingCounts, RouterEntropyIsTheMeanOverUnits) {
  auto trace = sparse_trace();
  trace.probs_UE = at::tensor({0.25f, 0.25f, 0.25f, 0.25f, 0.0f, 1.0f, 0.0f, 0.0f}).view({2, 4});
  EXPECT_NEAR(record_of(trace).router_entropy.value(), 0.5, 1e-12);
  EXPECT_FALSE(record_of(sparse_trace()).router_entropy.has_value());
}

}  // namespace
