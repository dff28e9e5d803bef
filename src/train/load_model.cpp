// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/load_model.h"

#include <algorithm>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/train/checkpoint_store.h"
#include "conclave/train/model_state.h"

namespace conclave::train {

namespace fs = std::filesystem;

namespace {

constexpr const char* kResolvedConfig = "resolved_config.yaml";

bool is_step_number(const std::string& text) {
  return !text.empty() && text.size() < 19 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

fs::path checkpoint_of_run(const fs::path& run, const std::optional<std::string>& checkpoint) {
  const CheckpointStore store(run / "checkpoints");
  if (checkpoint) return store.open(std::stoll(*checkpoint)).folder();
  if (const auto step = store.latest()) return store.step_folder(*step);
  throw Error(
      fmt::format("'{}' has no complete checkpoint yet; name a run folder or a checkpoint", run.string()),
      Error::Kind::kData);
}

}  // namespace

std::shared_ptr<model::LanguageModel> make_model(const RunConfig& config, const data::Tokenizer& tokenizer,
                                                 const moe::Registry& registry,
                                                 std::shared_ptr<comm::Communicator> expert_parallel,
                                                 c10::Device device) {
  auto made = std::make_shared<model::LanguageModel>(
      config.model, config.model.embedding_rows(tokenizer.vocab_size()), registry,
      static_cast<uint64_t>(config.run.seed), parameter_dtype(config.training.precision),
      activation_dtype(config.training.precision), std::move(expert_parallel));
  made->to(device);
  return made;
}

ModelPlace find_model(const fs::path& where, const std::optional<std::string>& checkpoint,
                      const std::optional<std::string>& config) {
  if (!fs::is_directory(where)) {
    throw Error(fmt::format("'{}' is no folder; name the folder of a run (runs/NAME) or of a checkpoint "
                            "(runs/NAME/checkpoints/step-...)",
                            where.string()),
                Error::Kind::kData);
  }
  ModelPlace place;
  fs::path run = where;
  if (fs::exists(where / kManifestFile)) {
    CONCLAVE_CHECK(!checkpoint,
                   fmt::format("'{}' is a checkpoint already; leave out --checkpoint", where.string()));
    place.checkpoint = where;
    run = fs::weakly_canonical(where).parent_path().parent_path();
  } else if (checkpoint && !is_step_number(*checkpoint)) {
    place.checkpoint = *checkpoint;
  } else {
    place.checkpoint = checkpoint_of_run(where, checkpoint);
  }
  place.config = config ? fs::path(*config) : run / kResolvedConfig;
  if (!fs::exists(place.config)) {
    throw Error(fmt::format("there is no '{}'; name the configuration of the checkpoint with --config FILE",
                            place.config.string()),
                Error::Kind::kData);
  }
  return place;
}

LoadedModel load_model(const ModelPlace& place, const std::vector<std::string>& overrides,
                       const moe::Registry& registry) {
  const Checkpoint checkpoint(place.checkpoint);
  LoadedModel loaded;
  loaded.config = read_run_config(place.config, overrides, registry);
  loaded.tokenizer = data::make_tokenizer(loaded.config.tokenizer);
  loaded.model =
      make_model(loaded.config, *loaded.tokenizer, registry, {}, open_device(loaded.config.device));
  restore_weights(checkpoint, nn::tagged_parameters(*loaded.model), named_buffers(*loaded.model));
  loaded.step = checkpoint.manifest().step;
  return loaded;
}

}  // namespace conclave::train
