// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conclave/data/tokenizer.h"
#include "conclave/model/language_model.h"
#include "conclave/train/run_config.h"

namespace conclave::train {

// A freshly initialised model as the configuration wants it. `expert_parallel`: ranks that share its experts
// and run it together; null: all are here, whatever the configuration says of ranks. Starts with the same
// values on every device.
std::shared_ptr<model::LanguageModel> make_model(const RunConfig& config, const data::Tokenizer& tokenizer,
                                                 const moe::Registry& registry,
                                                 std::shared_ptr<comm::Communicator> expert_parallel = {},
                                                 c10::Device device = c10::DeviceType::CPU);

// Where weights and their configuration are.
struct ModelPlace {
  std::filesystem::path checkpoint = {};  // a step-... folder
  std::filesystem::path config = {};      // resolved_config.yaml of its run
};

// `where`: a run folder or a checkpoint inside one. `checkpoint`: a step number or a folder; null: the newest
// of the run. `config`: null: the run's. Throws Error (kData) that says what there is.
ModelPlace find_model(const std::filesystem::path& where, const std::optional<std::string>& checkpoint = {},
                      const std::optional<std::string>& config = {});

struct LoadedModel {
  RunConfig config = {};
  std::shared_ptr<const data::Tokenizer> tokenizer = {};
  std::shared_ptr<model::LanguageModel> model = {};
  int64_t step = 0;
};

// Reads the weights (checksums verified) into a model of the run's configuration with overrides, on its
// device. Writes nothing.
LoadedModel load_model(const ModelPlace& place, const std::vector<std::string>& overrides,
                       const moe::Registry& registry);

}  // namespace conclave::train
