// SPDX-License-Identifier: Apache-2.0
// Invariants 8 to 11 (docs/invariants.md): caches, metrics files, patterns that match nothing, locales.
#include <cstdio>
#include <fstream>
#include <locale>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comma_locale.h"
#include "conclave/config/load.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/data/corpus.h"
#include "conclave/data/token_file.h"
#include "conclave/train/metrics.h"
#include "conclave/train/run_config.h"
#include "train/temporary_folder.h"

namespace conclave::invariants {
namespace {

// Bytes moved by one; `identity` is what it tells the cache.
class ShiftedTokenizer : public data::Tokenizer {
 public:
  explicit ShiftedTokenizer(std::string identity) : identity_(std::move(identity)) {}
  int64_t vocab_size() const override { return 257; }
  void encode(std::string_view text, std::vector<int32_t>& ids) const override {
    for (const char c : text) ids.push_back((static_cast<unsigned char>(c) + 1) % 256);
  }
  std::string decode(std::span<const int32_t>) const override { return ""; }
  int32_t document_mark() const override { return 256; }
  int64_t bytes_of(int32_t token) const override { return token < 256; }
  std::string identity() const override { return identity_; }

 private:
  std::string identity_;
};

// Opens the same source with the byte tokenizer and then with `second`; whether the second got its own
// tokens.
bool gets_its_own_tokens(const data::Tokenizer& second) {
  const train::TemporaryFolder folder;
  std::ofstream(folder / "a.txt") << "hello";
  const data::TokenSource source{.name = "a", .files = data::find_files(folder / "a.txt"), .options = {}};
  data::open_tokens(source, *data::byte_tokenizer(), folder / "tokens", Log());
  const auto file = data::open_tokens(source, second, folder / "tokens", Log());
  std::vector<int32_t> tokens(6), want{second.document_mark()};
  file.copy(0, tokens);
  second.encode("hello", want);
  return tokens == want;
}

TEST(Invariant8,
     a_token_cache_is_not_shared_between_tokenizers_and_a_key_that_forgets_the_tokenizer_is_caught) {
  EXPECT_TRUE(gets_its_own_tokens(ShiftedTokenizer("shifted")));
  EXPECT_FALSE(gets_its_own_tokens(ShiftedTokenizer(data::byte_tokenizer()->identity())));
}

// A run writes steps 1 to 5, is killed, and is continued from step 3 by `continued`; whether every step then
// stands once, with the values of the second start.
template <class Continue>
bool each_step_stands_once(Continue continued) {
  const train::TemporaryFolder folder;
  const auto emit = [](train::MetricsSink& sink, int64_t from, int64_t to, double value) {
    for (int64_t step = from; step <= to; ++step) {
      const train::Metric metric{"train/loss", value};
      sink.emit(step, 2.5, std::span(&metric, 1));
    }
  };
  const auto start = [&](int64_t last_step) {
    return std::move(train::make_metrics_sinks({"jsonl"}, train::builtin_metrics_sinks(),
                                               {.folder = folder.path(), .last_step = last_step})[0]);
  };
  emit(*start(-1), 1, 5, 1.0);
  std::ofstream(folder / train::kMetricsFile, std::ios::app) << "{\"step\":6,\"ti";  // killed inside a line
  try {
    continued(folder / train::kMetricsFile, [&] { emit(*start(3), 4, 7, 2.0); });
    const auto series = train::read_metrics(folder / train::kMetricsFile).at("train/loss");
    return series.steps == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7} &&
           series.values == std::vector<double>{1, 1, 1, 2, 2, 2, 2};
  } catch (const Error&) {
    return false;
  }
}

TEST(Invariant9, each_metrics_step_stands_once_after_a_crash_and_lines_that_are_only_appended_are_caught) {
  EXPECT_TRUE(each_step_stands_once([](const auto&, const auto& resume) { resume(); }));
  EXPECT_FALSE(each_step_stands_once([](const auto& file, const auto&) {
    std::ofstream out(file, std::ios::app);
    for (int step = 4; step <= 7; ++step)
      out << fmt::format("{{\"step\":{},\"time\":2.5,\"train/loss\":2}}\n", step);
  }));
}

// Whether a call is refused with a message that says what was asked for and what there is.
template <class Call>
bool is_refused_with(Call call, const std::vector<std::string>& words) {
  try {
    call();
  } catch (const std::exception& error) {
    for (const auto& word : words)
      if (std::string(error.what()).find(word) == std::string::npos) {
        ADD_FAILURE() << "'" << word << "' is missing in: " << error.what();
      }
    return true;
  }
  return false;
}

TEST(Invariant10,
     names_and_patterns_that_match_nothing_are_refused_with_what_exists_and_an_empty_match_is_caught) {
  const train::TemporaryFolder folder;
  const auto registry = moe::builtin();
  const std::string yaml = folder / "a.yaml";
  std::ofstream(yaml) << "model:\n  moe: {num_experts: 5, moe_intermediate_size: 7}\n"
                         "data: {train: [{path: a.txt}]}\ntraining: {train_iters: 2}\n";
  const auto with = [&](const std::string& text) {
    return [&registry, yaml, text] { train::read_run_config(yaml, {text}, registry); };
  };
  EXPECT_FALSE(is_refused_with(with("run.seed=3"), {}));
  EXPECT_TRUE(is_refused_with(with("model.moe.layers=[1, 9]"), {"layer 9", "layers are 0 to 3"}));
  EXPECT_TRUE(is_refused_with(with("model.moe.router.type=topkk"), {"topkk", "topk", "soft", "dselect_k"}));
  EXPECT_TRUE(is_refused_with(with("model.moe.aux_losses=[{type: zloss}]"), {"zloss", "z_loss"}));
  EXPECT_TRUE(is_refused_with([] { train::make_metrics_sinks({"csv"}, train::builtin_metrics_sinks(), {}); },
                              {"csv", "jsonl", "tensorboard"}));
  EXPECT_TRUE(is_refused_with([&] { data::open_corpus("domains5", folder.path(), Log()); },
                              {"domains5", "domains4"}));
  EXPECT_TRUE(is_refused_with([&] { data::find_files(folder / "*.txt"); }, {"*.txt"}));
  EXPECT_TRUE(is_refused_with([&] { data::find_files(folder / "absent"); }, {"absent"}));
  std::ofstream(folder / "b.jsonl") << "{\"text\": \"x\", \"topic\": \"y\"}\n";
  EXPECT_TRUE(is_refused_with(
      [&] { data::read_documents(folder / "b.jsonl", {.label_field = "tpoic"}, [](data::Document&&) {}); },
      {"tpoic", "text", "topic"}));
  // The broken double: a resolver that takes "nothing matches" for an empty list.
  const auto lenient = [&] {
    std::vector<std::string> found;
    for (const auto& name : folder.names())
      if (name.ends_with(".txt")) found.push_back(name);
  };
  EXPECT_FALSE(is_refused_with(lenient, {}));
}

struct CommaNumbers : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

// A decimal comma for streams, and for the C functions where such a locale can be had.
struct GermanNumbers {
  GermanNumbers() : before(std::locale::global(std::locale(std::locale(), new CommaNumbers))) {}
  ~GermanNumbers() { std::locale::global(before); }
  CommaLocale c_library = {};
  std::locale before;
};

// The configuration as it is frozen, and metrics as they are written and read back.
std::string what_is_written() {
  const train::TemporaryFolder folder;
  const auto registry = moe::builtin();
  std::ofstream(folder / "a.yaml")
      << "model: {rope_theta: 12345.5}\ndata: {seq_length: 2500, train: [{path: a.txt}]}\n"
         "optimizer: {lr: 1.25e-03}\ntraining: {train_tokens: 4.5M}\n";
  std::string all = config::emit_yaml(train::dump_run_config(
      train::read_run_config(folder / "a.yaml", {"training.clip_grad=0.75"}, registry), registry));
  const train::Metric metric{"train/loss", 1234.5};
  train::make_metrics_sinks({"jsonl"}, train::builtin_metrics_sinks(), {.folder = folder.path()})[0]->emit(
      10000, 2.5, std::span(&metric, 1));
  all += read_file(folder / train::kMetricsFile);
  return all +
         fmt::format("{}", train::read_metrics(folder / train::kMetricsFile).at("train/loss").values[0]);
}

std::string by_stream() {
  std::ostringstream out;
  out << 1234.5;
  return out.str();
}

std::string by_the_c_library() {
  char text[16];
  std::snprintf(text, sizeof text, "%.1f", 1234.5);
  return text;
}

TEST(Invariant11, a_decimal_comma_in_the_host_changes_nothing_and_plain_streams_and_printf_are_caught) {
  const std::string want = what_is_written();
  const GermanNumbers numbers;
  EXPECT_EQ(what_is_written(), want);
  EXPECT_EQ(by_stream(), "1.234,5");
  if (!numbers.c_library.active())
    GTEST_SKIP() << "streams only: no C locale with a decimal comma can be had here";
  EXPECT_EQ(by_the_c_library(), "1234,5");
}

}  // namespace
}  // namespace conclave::invariants
