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
  // A copy of a checkpoint whose list of files is changed, with a manifest that is intact.
  template <class Change>
  Checkpoint changed(const std::string& run, int64_t step, Change change) {
    const auto folder = folder_ / "changed";
    std::filesystem::remove_all(folder);
    std::filesystem::copy(checkpoint(run, step), folder);
    auto manifest = Checkpoint(folder).manifest();
    change(manifest.files, folder);
    write_file_atomically(folder / kManifestFile, render_manifest(manifest));
    return Checkpoint(folder);
  }
  std::string refusal(const Checkpoint& checkpoint) {
    auto config = read("reader");
    const auto model = make_model(config, *data::make_tokenizer(config.tokenizer), registry_);
    const auto before = model->named_parameters()["embed_tokens"].clone();
    const auto text =
        failure([&] { restore_weights(checkpoint, nn::tagged_parameters(*model), named_buffers(*model)); });
    EXPECT_EQ((model->named_parameters()["embed_tokens"] - before).abs().max().item<double>() == 0,
              !text.empty());
    return text;
  }
};

TEST_F(FilesOfRanks, are_refused_with_a_hole_an_overlap_or_a_stranger) {
  EXPECT_EQ(refusal(Checkpoint(checkpoint("good", 2))), "");

  const auto hole = refusal(changed("good", 2, [](auto& files, const auto&) {
    std::erase_if(files, [](const auto& file) { return file.name == "model-00002-of-00002.safetensors"; });
  }));
  EXPECT_TRUE(has(hole, "holds no tensor 'layers_0.moe.experts.4.down_proj.weight'")) << hole;

  const auto overlap = refusal(changed("good", 2, [](auto& files, const auto& folder) {
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

TEST_F(FilesOfRanks, parts_of_rows_are_refused_with_a_hole_an_overlap_or_another_shape) {
  train_on({4, 2}, "shared", {"training.train_iters=1", "parallelism.zero_stage=1"});
  const auto open = [&](const Checkpoint& checkpoint) {
    return failure([&] { TensorSet(checkpoint, "optimizer"); });
  };
  const TensorSet whole(Checkpoint(checkpoint("shared", 1)), "optimizer");
  EXPECT_EQ(whole.outline("embed_tokens.exp_avg").shape, whole.at("embed_tokens.exp_avg").shape);
  // Rows of one read alone are those of the whole.
  const auto all = whole.at("embed_tokens.exp_avg");
  std::vector<std::byte> rows(all.bytes.size() / static_cast<size_t>(all.shape[0]) * 100);
  whole.read_rows("embed_tokens.exp_avg", 50, 100, rows.data());
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), all.bytes.begin() + rows.size() / 2));

  const std::string last = "optimizer-00004-of-00004.safetensors";
  const auto hole = open(changed("shared", 1, [&](auto& files, const auto&) {
    std::erase_if(files, [&](const auto& file) { return file.name == last; });
  }));
  EXPECT_TRUE(has(hole, " rows, and row ")) << hole;
  const auto overlap = open(changed("shared", 1, [&](auto& files, const auto& folder) {
    auto twice =
        *std::find_if(files.begin(), files.end(), [&](const auto& file) { return file.name == last; });
    twice.name = "optimizer-00005-of-00005.safetensors";
    std::filesystem::copy(folder / last, folder / twice.name);
    files.push_back(twice);
  }));
  EXPECT_TRUE(has(overlap, "the files are not of one save")) << overlap;

  // A part that claims other rows.
  const auto part = folder_ / "part.safetensors";
  const std::vector<float> values(6);
  const auto claim = [&](const std::string& rows_of) {
    write_safetensors(part, {{"w", "F32", {2, 3}, std::as_bytes(std::span(values))}},
                      {{"rows of w", rows_of}});
    return failure([&] { TensorSet set(part); });
  };
  EXPECT_EQ(claim("0 of 2"), "");
  EXPECT_TRUE(has(claim("0 of 4"), "tensor 'w' has 4 rows, and row 2 is in none of"));
  EXPECT_TRUE(has(claim("1 of 2"), "row 0 is in none of")) << claim("1 of 2");
  for (const char* nonsense : {"", "0", "0 of", "-1 of 2", "0 of 0", "0 of 2x", "0 of 99999999999999999999"})
    EXPECT_TRUE(has(claim(nonsense), "the file is not one of ours")) << nonsense << claim(nonsense);
}

}  // namespace
}  // namespace conclave::train
