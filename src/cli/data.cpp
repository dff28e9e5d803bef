// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "conclave/data/corpus.h"
#include "conclave/data/dataset.h"
#include "conclave/data/statistics.h"

namespace conclave::cli {

namespace {

// A built-in corpus by name with its own split, else a path, of which only a run's configuration holds
// documents out.
data::DataOptions source_options(const std::string& what) {
  data::DataOptions options{.train = {{}}};
  for (const auto& info : data::builtin_corpora()) {
    if (info.name != what) continue;
    options.train[0].corpus = what;
    return options;
  }
  options.train[0].path = what;
  options.valid.fraction = 0;
  return options;
}

}  // namespace

void add_data(CLI::App& app, const moe::Registry&, Action& action) {
  auto* sub = app.add_subcommand("data", "Build and describe corpora.");
  sub->require_subcommand(1);
  auto what = std::make_shared<std::string>();
  auto* build =
      sub->add_subcommand("build", "Make a built-in corpus in the cache: conclave data build domains4");
  build->add_option("corpus", *what, "Name of the corpus.")->required();
  build->callback([&action, what] {
    action = [what] {
      fmt::print("{}\n", data::open_corpus(*what, data::corpora_directory(), stderr_log()).string());
      return int{kDone};
    };
  });
  auto* describe =
      sub->add_subcommand("describe", "Sizes, duplicates, domains and byte entropies of a corpus.");
  describe->add_option("path", *what, "Built-in corpus, file, folder or glob.")->required();
  describe->callback([&action, what] {
    action = [what] {
      const auto dataset = data::open_dataset(source_options(*what), data::byte_tokenizer(), stderr_log());
      fmt::print("{}", data::format_statistics(data::describe(dataset)));
      return int{kDone};
    };
  });
}

}  // namespace conclave::cli
