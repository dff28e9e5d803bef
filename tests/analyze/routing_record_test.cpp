// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/routing_record.h"

#include <fstream>

#include <gtest/gtest.h>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "train/temporary_folder.h"

namespace {

using namespace conclave;
using namespace conclave::analyze;
using train::TemporaryFolder;

RoutingRecord example() {
  return {.step = 30,
          .whole = true,
          .num_tokens = 17,
          .domains = {"prose", "q\"uote"},
          .layers = {{.layer = 2,
                      .unit = RoutingUnit::kMass,
                      .router_entropy = 0.25,
                      .experts = {{.requested = 1.0 / 3,
                                   .kept = 0.125,
                                   .by_domain = {0.25, 1e-9},
                                   .frequent = {{.token = 256, .amount = 3, .share = 0.5},
                                                {.token = 10, .bytes = "\n\xff", .amount = 2, .share = 1}}},
                                  {.by_domain = {0, 0}}}}}};
}

TEST(RoutingRecord, ReadsBackExactlyWhatWasWritten) {
  const TemporaryFolder folder;
  const auto record = example();
  const auto path = folder / "step-00000030.json";
  write_file_atomically(path, render_routing_record(record));
  const auto back = read_routing_record(path);
  EXPECT_EQ(render_routing_record(back), render_routing_record(record));
  EXPECT_TRUE(back.whole);
  EXPECT_EQ(back.domains, record.domains);
  const auto& layer = back.layers.at(0);
  EXPECT_EQ(layer.unit, RoutingUnit::kMass);
  EXPECT_FALSE(layer.token_information_bits.has_value());
  EXPECT_EQ(layer.experts.at(0).requested, 1.0 / 3);
  EXPECT_EQ(layer.experts[0].by_domain, (std::vector<double>{0.25, 1e-9}));
  EXPECT_EQ(layer.experts[0].frequent[1].bytes, "\n\xff");
}

TEST(RoutingRecord, DamageIsNamedWithFileAndPlace) {
  const TemporaryFolder folder;
  const auto path = folder / "step-00000030.json";
  const auto refusal = [&](const std::string& from, const std::string& to) -> std::string {
    std::string text = render_routing_record(example());
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    std::ofstream(path) << text.replace(at, from.size(), to);
    try {
      read_routing_record(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kData);
      EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal("17", "18"), "");
  EXPECT_NE(refusal("routing-1", "routing-9").find("format"), std::string::npos);
  EXPECT_NE(refusal("\"mass\"", "\"mess\"").find("unit"), std::string::npos);
  EXPECT_NE(refusal("\"all\"", "\"some\"").find("over"), std::string::npos);
  EXPECT_NE(refusal("[0.25,1e-09]", "[0.25]").find("by_domain"), std::string::npos);
  EXPECT_NE(refusal("0aff", "0axf").find("hexadecimal"), std::string::npos);
  EXPECT_NE(refusal("0aff", "0af").find("hexadecimal"), std::string::npos);
  EXPECT_NE(refusal("\"kept\":0.125", "\"kept\":-1").find("kept"), std::string::npos);
  EXPECT_NE(refusal("]}\n", "").find("JSON"), std::string::npos);
}

TEST(RoutingRecord, OnlyItsOwnFilesAreListedInTheOrderOfSteps) {
  const TemporaryFolder folder;
  EXPECT_TRUE(routing_steps(folder.path()).empty());
  std::filesystem::create_directory(folder / kRoutingFolder);
  for (const char* name : {"step-00000020.json", "step-00000003.json", "step-100000007.json", "step-3.json",
                           "step-00000004.json.tmp", "notes.json"}) {
    std::ofstream(folder.path() / kRoutingFolder / name) << "x";
  }
  EXPECT_EQ(routing_steps(folder.path()), (std::vector<int64_t>{3, 20, 100000007}));
}

}  // namespace
