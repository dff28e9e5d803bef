// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "conclave/data/tokenizer.h"
#include "conclave/model/decode_state.h"
#include "conclave/model/sampling.h"
#include "conclave/moe/registry.h"

namespace conclave::model {

class LanguageModel;
struct ModelOptions;

// Whether a model with these options can write text: throws Error with the reason when it cannot (a masked
// language model; a router that looks at later tokens; a capacity limit in evaluation). Returns what differs
// from training and a person should know; empty: nothing.
std::string check_generation(const ModelOptions& options, const moe::Registry& registry);

// Continues text. Leaves the model, which must outlive it, and so a training run as they are. Made anew when
// the weights change. One thread at a time.
class Generator {
 public:
  // `step`: the optimizer step of the weights, for scheduled values. Check first: check_generation.
  Generator(LanguageModel& model, std::shared_ptr<const data::Tokenizer> tokenizer, int64_t step = 0);

  // What follows `prompt` at the start of a document (the prompt itself not included), until the model ends
  // the document or max_tokens are reached. Sample `index` of a seed is always the same text, whatever else
  // was generated before. `on_text`, if given, gets the bytes as they come.
  std::string generate(std::string_view prompt, const SamplingOptions& options, uint64_t index = 0,
                       const std::function<void(std::string_view)>& on_text = nullptr);

 private:
  at::Tensor next_logits(std::span<const int32_t> tokens);  // [V of the tokenizer]

  LanguageModel& model_;
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  int64_t step_ = 0;
  std::string prompt_ = {};  // what the state begins with; its tokens are not run again
  int64_t prompt_length_ = 0;
  DecodeState state_ = {};
  at::Tensor prompt_logits_ = {};
};

}  // namespace conclave::model
