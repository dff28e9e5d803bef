// SPDX-License-Identifier: Apache-2.0
// A checkpoint of several ranks whose files do not fit each other is refused before a tensor is touched.
#include "conclave/train/tensor_set.h"

#include <algorithm>

#include "conclave/train/load_model.h"
#include "conclave/train/model_state.h"
#include "train/ranks_run.h"

namespace conclave::train {
namespace {

class FilesOfRanks : public RanksRun {
 protected:
  void SetUp() override {
    RanksRun::SetUp();
    train_on({2, 2}, "good", {"training.train_iters=2"});
    train_on({2, 2}, "other", {"training.train_iters=2", "run.seed=5"});
  }
  // A copy of the checkpoint whose list of files is changed, with a manifest that is intact.
  template <class Change>
  Checkpoint changed(Change change) {
    const auto folder = folder_ / "changed";
    std::filesystem::remove_all(folder);
    std::filesystem::copy(checkpoint("good", 2), folder);
    auto manifest = Checkpoint(folder).manifest();
    change(manifest.files, folder);
    write_file_atomically(folder / kManifestFile, render_manifest(manifest));
    return Checkpoint(folder);
  }
  std::string refusal(const Checkpoint& checkpoint) {
    auto config = read("reader");
    const auto model = make_model(config, *data::make_tokenizer(config.tokenizer), registry_);
    const auto before = model->named_parameters()["embed_tokens"].clone();
    const auto text = failure(
        [&] { load_checkpoint(checkpoint, nn::tagged_parameters(*model), named_buffers(*model), nullptr); });
    EXPECT_EQ((model->named_parameters()["embed_tokens"] - before).abs().max().item<double>() == 0,
              !text.empty());
    return text;
  }
};

TEST_F(FilesOfRanks, are_refused_with_a_hole_an_overlap_or_a_stranger) {
  EXPECT_EQ(refusal(Checkpoint(checkpoint("good", 2))), "");

  const auto hole = refusal(changed([](auto& files, const auto&) {
    std::erase_if(files, [](const auto& file) { return file.name == "model-00002-of-00002.safetensors"; });
  }));
  EXPECT_TRUE(has(hole, "holds no tensor 'layers_0.moe.experts.4.down_proj.weight'")) << hole;

  const auto overlap = refusal(changed([](auto& files, const auto& folder) {
    auto twice = *std::find_if(files.begin(), files.end(), [](const auto& file) {
      return file.name == "model-00002-of-00002.safetensors";
    });
    std::filesystem::copy(folder / twice.name, folder / "model-00003-of-00003.safetensors");
    twice.name = "model-00003-of-00003.safetensors";
    files.push_back(twice);
  }));
  EXPECT_TRUE(has(overlap, "stands in '")) << overlap;
  EXPECT_TRUE(has(overlap, "model-00003-of-00003.safetensors'; the files are not of one save")) << overlap;

  // A file of another run in the place of ours.
  std::filesystem::remove_all(folder_ / "mixed");
  std::filesystem::copy(checkpoint("good", 2), folder_ / "mixed");
  std::filesystem::copy_file(checkpoint("other", 2) / "model-00002-of-00002.safetensors",
                             folder_ / "mixed/model-00002-of-00002.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  const auto mixed = refusal(Checkpoint(folder_ / "mixed"));
  EXPECT_TRUE(has(
      mixed, "model-00002-of-00002.safetensors': damaged tensors: layers_0.moe.experts.4.down_proj.weight"))
      << mixed;

  // A checkpoint of a model with more experts.
  train_on({2, 2}, "more", {"training.train_iters=1", "model.moe.num_experts=10"});
  const auto more = refusal(Checkpoint(checkpoint("more", 1)));
  EXPECT_TRUE(has(more, "tensor 'layers_0.moe.experts.8.down_proj.weight' belongs to no parameter")) << more;
}

}  // namespace
}  // namespace conclave::train
