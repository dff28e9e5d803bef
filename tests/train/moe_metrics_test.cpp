// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/moe_metrics.h"

#include <map>

#include <gtest/gtest.h>

namespace conclave::train {
namespace {

std::map<std::string, double> named(const std::vector<Metric>& metrics) {
  std::map<std::string, double> map;
  for (const auto& metric : metrics) {
    EXPECT_TRUE(map.emplace(metric.name, metric.value).second) << metric.name << " stands twice";
  }
  return map;
}

const moe::RoutingCounts kEven{.requested = {4, 4, 4}, .kept = {4, 4, 4}};
const moe::RoutingCounts kUneven{.requested = {9, 3, 0}, .kept = {6, 3, 0}};

TEST(MoeMetrics, BriefIsTheMeanOverTheLayersWhateverTheirNumber) {
  const std::vector<LayerRouting> layers = {{.counts = &kEven, .bias_norm = 0.5},
                                            {.counts = &kUneven, .bias_norm = 1.5}};
  const auto brief = named(moe_metrics(layers, MoeDetail::kBrief));
  EXPECT_EQ(brief.size(), 5u);
  EXPECT_DOUBLE_EQ(brief.at("moe/load_max_over_mean"), (1.0 + 2.25) / 2);
  EXPECT_DOUBLE_EQ(brief.at("moe/dead_share"), (0.0 + 1.0 / 3) / 2);
  EXPECT_DOUBLE_EQ(brief.at("moe/drop_rate"), (0.0 + 0.25) / 2);
  EXPECT_DOUBLE_EQ(brief.at("moe/bias_norm"), 1.0);
  const std::vector<LayerRouting> many(48, layers[1]);
  EXPECT_EQ(moe_metrics(many, MoeDetail::kBrief).size(), 5u);
}

TEST(MoeMetrics, FullAddsALineOfEachPerLayerAndOffIsNothing) {
  const std::vector<LayerRouting> layers = {{.counts = &kEven}, {.counts = &kUneven}};
  const auto full = named(moe_metrics(layers, MoeDetail::kFull));
  EXPECT_EQ(full.size(), 12u);
  EXPECT_DOUBLE_EQ(full.at("moe/load_max_over_mean_layer_1"), 2.25);
  EXPECT_DOUBLE_EQ(full.at("moe/drop_rate_layer_0"), 0.0);
  EXPECT_TRUE(moe_metrics(layers, MoeDetail::kOff).empty());
}

TEST(MoeMetrics, LayersWithoutPairsDoNotDiluteTheMean) {
  const moe::RoutingCounts nothing;
  const std::vector<LayerRouting> mixed = {{.counts = &nothing}, {.counts = &kUneven}};
  EXPECT_DOUBLE_EQ(named(moe_metrics(mixed, MoeDetail::kBrief)).at("moe/load_max_over_mean"), 2.25);
  EXPECT_TRUE(moe_metrics({mixed.data(), 1}, MoeDetail::kFull).empty());
  EXPECT_TRUE(moe_metrics({}, MoeDetail::kFull).empty());
}

}  // namespace
}  // namespace conclave::train
