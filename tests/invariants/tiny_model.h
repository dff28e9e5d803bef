// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "conclave/data/batch_stream.h"
#include "conclave/data/evaluation.h"
#include "conclave/model/language_model.h"
#include "conclave/train/run_config.h"
#include "train/temporary_folder.h"

namespace conclave::invariants {

// A model in double, and a data set of documents of very different lengths, so that rows and micro-batches
// have different numbers of targets.
struct TinyModel {
  explicit TinyModel(data::Packing packing = data::Packing::kNone) {
    std::ofstream corpus(folder / "text.jsonl");
    for (int i = 0; i < 40; ++i)
      corpus << fmt::format("{{\"text\": \"{}\"}}\n", std::string(static_cast<size_t>(1 + i * i % 19),
                                                                  static_cast<char>('a' + i % 23)));
    corpus.close();
    setenv("CONCLAVE_CACHE", (folder / "cache").c_str(), 1);
    data::DataOptions options{.seq_length = 13, .packing = packing};
    options.train = {{.path = (folder / "text.jsonl").string()}};
    options.valid.fraction = 0.2;
    dataset = data::open_dataset(options, data::byte_tokenizer(), Log());
    config::Plugin router{.type = "topk", .options = registry.routers.at("topk").defaults()};
    model = std::make_shared<model::LanguageModel>(
        model::ModelOptions{
            .hidden_size = 12,
            .num_hidden_layers = 2,
            .num_attention_heads = 3,
            .num_key_value_heads = 3,
            .moe = model::MoeOptions{.num_experts = 5, .moe_intermediate_size = 7, .router = router}},
        dataset.tokenizer->vocab_size(), registry, 7, at::kDouble);
    parameters = nn::tagged_parameters(*model);
  }
  data::BatchStream stream(int64_t micro_batch_size) const {
    return {dataset, data::StreamOptions{.seed = 3, .micro_batch_size = micro_batch_size}};
  }
  double loss_sum(const data::Batch& batch) const {
    moe::ForwardContext context;
    return model->loss(batch, context).sum.item<double>();
  }

  train::TemporaryFolder folder;
  moe::Registry registry = moe::builtin();
  data::Dataset dataset;
  std::shared_ptr<model::LanguageModel> model;
  std::vector<nn::TaggedParameter> parameters;
};

}  // namespace conclave::invariants
