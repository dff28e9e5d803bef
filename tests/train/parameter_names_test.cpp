// SPDX-License-Identifier: Apache-2.0
// docs/parameters.md is the one list of logical names: everything that models have, and nothing more.
#include <fstream>
#include <regex>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "conclave/model/language_model.h"
#include "conclave/train/model_state.h"

namespace {

using namespace conclave;
using Names = std::set<std::string>;

// Names in backquotes in the first column of the page's table.
Names documented_names() {
  std::ifstream page(std::string(CONCLAVE_SOURCE_DIR) + "/docs/parameters.md");
  const std::regex row("^\\| `([^`]+)` \\|.*");
  Names names;
  std::smatch match;
  for (std::string line; std::getline(page, line);) {
    if (std::regex_match(line, match, row)) names.insert(match[1]);
  }
  return names;
}

// "layers_1.moe.experts.3.w" -> "layers_{layer}.moe.experts.{expert}.w"
std::string pattern_of(const std::string& name) {
  const auto layer = std::regex_replace(name, std::regex("^layers_\\d+\\."), "layers_{layer}.");
  return std::regex_replace(layer, std::regex("\\.experts\\.\\d+\\."), ".experts.{expert}.");
}

void add_names(const model::ModelOptions& options, const moe::Registry& registry, Names& names) {
  const model::LanguageModel model(options, /*vocab_size=*/11, registry, /*seed=*/5, at::kFloat);
  for (const auto& parameter : nn::tagged_parameters(model)) {
    for (const auto& slice : train::logical_slices(parameter, parameter.tensor)) {
      names.insert(pattern_of(slice.name));
    }
  }
  for (const auto& buffer : train::named_buffers(model)) names.insert(pattern_of(buffer.name));
}

// A dense layer before a MoE layer with shared experts and their gate, for every router of the registry.
Names names_of_all_models(const moe::Registry& registry) {
  Names names;
  for (const auto& router : registry.routers.entries()) {
    model::MoeOptions moe{
        .num_experts = 3, .moe_intermediate_size = 5, .layers = {{1}}, .num_shared_experts = 1};
    moe.shared_expert_gate = true;
    moe.router = {.type = router.name, .options = router.defaults()};
    add_names({.hidden_size = 12,
               .num_hidden_layers = 2,
               .num_attention_heads = 2,
               .num_key_value_heads = 1,
               .intermediate_size = 7,
               .qk_norm = nn::QkNorm::kHead,
               .moe = moe},
              registry, names);
  }
  return names;
}

Names without(Names names, const Names& others) {
  std::erase_if(names, [&](const std::string& name) { return others.count(name) > 0; });
  return names;
}

TEST(ParameterNames, the_page_lists_every_name_of_every_model_and_nothing_more) {
  const auto real = names_of_all_models(moe::builtin()), listed = documented_names();
  EXPECT_EQ(without(real, listed), Names{}) << "add these to docs/parameters.md";
  EXPECT_EQ(without(listed, real), Names{}) << "no model has these: take them out of docs/parameters.md";
}

TEST(ParameterNames, a_parameter_that_is_not_listed_is_noticed) {
  auto registry = moe::builtin();
  auto entry = registry.routers.at("topk");
  entry.name = "odd";
  const auto topk = entry.make;
  entry.make = [topk](const config::AnyOptions& options, const moe::RouterShape& shape) {
    auto router = topk(options, shape);
    router->register_parameter("odd", router->parameters().front().clone());
    return router;
  };
  registry.routers.add(entry);
  EXPECT_EQ(without(names_of_all_models(registry), documented_names()),
            Names{"layers_{layer}.moe.router.odd"});
}

}  // namespace
