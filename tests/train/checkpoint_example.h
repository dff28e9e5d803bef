// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/checkpoint_store.h"
#include "train/temporary_folder.h"

namespace conclave::train {

// Contents of a small checkpoint whose bytes differ from step to step. `extra` enlarges the model file.
inline CheckpointContents example_checkpoint(int64_t step, size_t extra = 0) {
  static std::map<std::pair<int64_t, size_t>, std::unique_ptr<std::vector<float>>>
      kept;  // what the views point to
  auto& values = kept[{step, extra}];
  if (!values) {
    values = std::make_unique<std::vector<float>>();
    for (size_t i = 0; i < 15 + extra / 4; ++i) values->push_back(static_cast<float>(step) + 0.5f * i);
  }
  const auto bytes = std::as_bytes(std::span(*values));
  CheckpointContents contents{.step = step,
                              .tokens = step * 96,
                              .config_hash = "0123456789abcdef",
                              .attributes = {{"world_size", "3"}},
                              .state = R"({"sampler":{"epoch":1}})",
                              .files = {}};
  contents.files.push_back({.name = "model.safetensors",
                            .tensors = {{"layers.0.gate", "F32", {3, 5}, bytes.first(60)},
                                        {"layers.1.gate", "BF16", {7}, bytes.first(14)}},
                            .metadata = {{"part", "model"}}});
  contents.files.push_back({.name = "optimizer.safetensors",
                            .tensors = {{"layers.0.gate.exp_avg", "F32", {5, 3}, bytes.first(60)}},
                            .metadata = {}});
  if (extra >= 4) {
    const auto size = static_cast<int64_t>(extra / 4);
    contents.files[0].tensors.push_back({"ballast", "F32", {size}, bytes.first(extra / 4 * 4)});
  }
  return contents;
}

// What `f` throws, which must be an Error; "" when it throws nothing.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains_text(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace conclave::train
