// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/core/error.h"
#include "conclave/model/generator.h"
#include "conclave/train/load_model.h"

namespace conclave::cli {

namespace {

struct GenerateArguments {
  std::string run, prompt;
  std::optional<std::string> checkpoint, config;
  std::vector<std::string> overrides;
  model::SamplingOptions sampling = {};
  int64_t num_samples = 1;
};

void write_raw(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size() || std::fflush(stdout) != 0) {
    throw Error(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
  }
}

int generate_command(const GenerateArguments& arguments, const moe::Registry& registry) {
  arguments.sampling.check();
  const auto place = train::find_model(arguments.run, arguments.checkpoint, arguments.config);
  const auto config = train::read_run_config(place.config, arguments.overrides, registry);
  const auto note = model::check_generation(config.model, registry);  // before any weight is read
  if (!note.empty()) stderr_log().info(note);
  const auto loaded = train::load_model(place, arguments.overrides, registry);
  const auto asked =
      static_cast<int64_t>(loaded.tokenizer->encode(arguments.prompt).size()) + arguments.sampling.max_tokens;
  if (asked >= loaded.config.data.seq_length) {
    stderr_log().info(
        fmt::format("the model was trained on at most {} tokens in a row; text beyond that is a guess",
                    loaded.config.data.seq_length));
  }
  model::Generator generator(*loaded.model, loaded.tokenizer, loaded.step);
  for (int64_t i = 0; i < arguments.num_samples; ++i) {
    if (i > 0) write_raw("\n--------\n");
    generator.generate(arguments.prompt, arguments.sampling, static_cast<uint64_t>(i), write_raw);
  }
  if (isatty(STDOUT_FILENO) != 0) write_raw("\n");
  return kDone;
}

}  // namespace

void add_generate(CLI::App& app, const moe::Registry& registry, Action& action) {
  auto* sub = app.add_subcommand("generate", "Continue a text with the model of a run.");
  auto a = std::make_shared<GenerateArguments>();
  sub->add_option("run", a->run, "Folder of a run or of a checkpoint.")->required();
  sub->add_option("overrides", a->overrides, "Changes to the run's configuration: a.b=c, +a.b=c or ~a.b.");
  sub->add_option("--prompt", a->prompt, "Text to continue; empty: the start of a document.");
  sub->add_option("--checkpoint", a->checkpoint, "Step number or checkpoint folder; default: the newest.");
  sub->add_option("--config", a->config, "Configuration of a checkpoint that stands outside its run.");
  sub->add_option("--max-tokens", a->sampling.max_tokens, "Longest sample.")->capture_default_str();
  sub->add_option("--temperature", a->sampling.temperature,
                  "Divides the logits; 0: always the likeliest token.")
      ->capture_default_str();
  sub->add_option("--top-p", a->sampling.top_p,
                  "Draw from the likeliest tokens that together reach this share.")
      ->capture_default_str();
  sub->add_option("--seed", a->sampling.seed, "Seed of the samples.")->capture_default_str();
  sub->add_option("--num-samples", a->num_samples, "Number of samples, separated by a line of dashes.")
      ->capture_default_str();
  sub->footer(
      "Prints the bytes of the continuation to standard output as they come, without the prompt.\n"
      "Example:\n  conclave generate runs/quickstart --prompt 'The ' --max-tokens 200 --temperature 0.8");
  sub->callback(
      [&action, &registry, a] { action = [a, &registry] { return generate_command(*a, registry); }; });
}

}  // namespace conclave::cli
