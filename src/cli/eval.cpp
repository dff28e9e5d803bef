// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/model/objective.h"
#include "conclave/train/evaluate.h"
#include "conclave/train/json_reader.h"
#include "conclave/train/load_model.h"

namespace conclave::cli {

namespace {

struct EvalArguments {
  std::string run;
  std::optional<std::string> checkpoint, config, output;
  std::optional<int64_t> max_tokens;
  std::vector<std::string> overrides;
};

struct NamedScore {
  std::string name;
  train::Score score;
};

std::vector<NamedScore> named_scores(const train::EvaluationResult& result,
                                     const std::vector<std::string>& domain_names) {
  std::vector<NamedScore> rows;
  train::Score all;
  for (const auto& [domain, score] : result.domains) {
    rows.push_back({domain_names.at(static_cast<size_t>(domain)), score});
    all.nats += score.nats;
    all.targets += score.targets;
    all.bytes += score.bytes;
  }
  rows.push_back({"all", all});
  return rows;
}

std::string table_text(const std::vector<NamedScore>& rows, model::Objective objective) {
  const bool code = model::codes_text(objective);
  size_t width = 6;
  for (const auto& row : rows) width = std::max(width, row.name.size());
  std::string text = fmt::format("{:<{}} {:>12} {:>12} {:>12}{}\n", "domain", width, "bytes", "targets",
                                 model::loss_name(objective), code ? "    bits/byte" : "");
  for (const auto& [name, score] : rows) {
    text +=
        fmt::format("{:<{}} {:>12} {:>12} {:>12.4f}", name, width, score.bytes, score.targets, score.loss());
    text += code ? fmt::format(" {:>12.4f}\n", score.bits_per_byte()) : "\n";
  }
  return text;
}

std::string score_json(const train::Score& score, model::Objective objective) {
  std::string text = fmt::format(R"({{"bytes": {}, "targets": {}, "{}": {})", score.bytes, score.targets,
                                 model::loss_name(objective), train::json_number(score.loss()));
  if (model::codes_text(objective))
    text += fmt::format(R"(, "bits_per_byte": {})", train::json_number(score.bits_per_byte()));
  return text + "}";
}

std::string result_json(const std::vector<NamedScore>& rows, const train::ModelPlace& place, int64_t step,
                        model::Objective objective) {
  std::vector<std::string> domains;
  for (size_t i = 0; i + 1 < rows.size(); ++i) {
    domains.push_back(
        fmt::format("    {}: {}", train::json_quote(rows[i].name), score_json(rows[i].score, objective)));
  }
  return fmt::format(
      "{{\n  \"checkpoint\": {},\n  \"step\": {},\n  \"all\": {},\n  \"domains\": {{\n{}\n  }}\n}}\n",
      train::json_quote(place.checkpoint.string()), step, score_json(rows.back().score, objective),
      fmt::join(domains, ",\n"));
}

int eval_command(const EvalArguments& arguments, const moe::Registry& registry) {
  const auto place = train::find_model(arguments.run, arguments.checkpoint, arguments.config);
  const auto loaded = train::load_model(place, arguments.overrides, registry);
  const auto& config = loaded.config;
  const auto dataset = data::open_dataset(config.data, loaded.tokenizer, stderr_log());
  const data::EvaluationSet set(
      dataset, {.micro_batch_size = config.training.micro_batch_size, .max_tokens = arguments.max_tokens});
  const auto result =
      train::evaluate(*loaded.model, set, static_cast<uint64_t>(config.run.seed), loaded.step);
  if (result.targets == 0) {
    throw Error("nothing is held out to evaluate on; set data.valid.fraction or list data.valid.sources",
                Error::Kind::kData);
  }
  const auto rows = named_scores(result, dataset.domain_names);
  fmt::print("{} (step {})\n{}", place.checkpoint.string(), loaded.step, table_text(rows, result.objective));
  if (arguments.output) {
    write_file_atomically(*arguments.output, result_json(rows, place, loaded.step, result.objective));
  }
  return kDone;
}

}  // namespace

void add_eval(CLI::App& app, const moe::Registry& registry, Action& action) {
  auto* sub = app.add_subcommand("eval", "Score held-out text with the model of a run, by domain.");
  auto a = std::make_shared<EvalArguments>();
  sub->add_option("run", a->run, "Folder of a run or of a checkpoint.")->required();
  sub->add_option("overrides", a->overrides, "Changes to the run's configuration: a.b=c, +a.b=c or ~a.b.");
  sub->add_option("--checkpoint", a->checkpoint, "Step number or checkpoint folder; default: the newest.");
  sub->add_option("--config", a->config, "Configuration of a checkpoint that stands outside its run.");
  sub->add_option("--max-tokens", a->max_tokens, "Score a fixed sample of this size; default: everything.")
      ->check(CLI::PositiveNumber);
  sub->add_option("--output", a->output, "Write the result to this JSON file; nothing else is written.");
  sub->footer(
      "Bits per byte count the nats of all targets, document marks included, over the bytes of text.\n"
      "Example:\n  conclave eval runs/quickstart --output quickstart.json");
  sub->callback([&action, &registry, a] { action = [a, &registry] { return eval_command(*a, registry); }; });
}

}  // namespace conclave::cli
