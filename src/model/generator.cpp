// SPDX-License-Identifier: Apache-2.0
#include "conclave/model/generator.h"

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/core/random.h"
#include "conclave/model/language_model.h"

namespace conclave::model {

std::string check_generation(const ModelOptions& options, const moe::Registry& registry) {
  if (options.objective == Objective::kMaskedLm) {
    throw Error(
        "generation: the model was trained with objective masked_lm, which fills gaps and predicts no next "
        "token; train with model.objective: causal_lm to generate text");
  }
  if (!options.moe) return "";
  const auto& router = options.moe->router;
  const auto caps = registry.routers.at(router.type).caps(router.options);
  if (!caps.causal) {
    throw Error(
        fmt::format("generation: router '{}' as configured looks at later tokens, which do not exist "
                    "yet; use a model with a causal router (topk, capacity ordered by position)",
                    router.type));
  }
  if (caps.drops_in_evaluation) {
    throw Error(fmt::format(
        "generation: router '{}' limits the tokens of an expert in evaluation (capacity.eval_factor), but a "
        "token that is generated alone has no batch to share experts with; override "
        "model.moe.router.capacity.eval_factor=null to generate without a limit",
        router.type));
  }
  return caps.drops_in_training
             ? "the router dropped tokens over its capacity in training; generation drops none"
             : "";
}

Generator::Generator(LanguageModel& model, std::shared_ptr<const data::Tokenizer> tokenizer, int64_t step)
    : model_(model), tokenizer_(std::move(tokenizer)), step_(step) {}

at::Tensor Generator::next_logits(std::span<const int32_t> tokens) {
  moe::ForwardContext context;
  context.phase = moe::Phase::kGenerate;
  context.step = step_;
  const auto logits = model_.extend(tokens, state_, context);
  moe::RefusedLogits refused;
  refused.add(context.traces);
  refused.check();
  // Rows of the head behind the tokenizer's ids stand for no text.
  return logits.select(0, logits.size(0) - 1).narrow(0, 0, tokenizer_->vocab_size());
}

std::string Generator::generate(std::string_view prompt, const SamplingOptions& options, uint64_t index,
                                const std::function<void(std::string_view)>& on_text) {
  options.check();
  if (!prompt_logits_.defined() || prompt_ != prompt) {
    std::vector<int32_t> tokens{tokenizer_->document_mark()};
    tokenizer_->encode(prompt, tokens);
    prompt_logits_.reset();
    state_.truncate(0);
    prompt_logits_ = next_logits(tokens);
    prompt_ = prompt;
    prompt_length_ = state_.length;
  }
  state_.truncate(prompt_length_);
  const RandomKey key{.seed = options.seed, .step = index};
  std::string text;
  auto logits = prompt_logits_;
  for (int64_t i = 0; i < options.max_tokens; ++i) {
    const double draw = key.uniform(RandomStream::kSampling, 0, static_cast<uint64_t>(i));
    const int32_t token = sample_token(logits, options, draw);
    if (token == tokenizer_->document_mark()) break;
    const std::string piece = tokenizer_->decode({&token, 1});
    text += piece;
    if (on_text) on_text(piece);
    if (i + 1 < options.max_tokens) logits = next_logits({&token, 1});
  }
  return text;
}

}  // namespace conclave::model
