// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/report.h"

#include <cmath>

#include <gtest/gtest.h>

#include "conclave/analyze/information.h"
#include "conclave/core/error.h"
#include "conclave/core/files.h"
#include "conclave/train/json_reader.h"
#include "conclave/train/metrics_lines.h"
#include "page.h"

namespace {

using namespace conclave;
using namespace conclave::analyze;
using train::Metric;
using train::TemporaryFolder;

// A run folder written by hand: `steps` logged steps, an evaluation every fourth, routing of two layers.
struct WrittenRun {
  explicit WrittenRun(const std::filesystem::path& path) : folder(path) {
    std::filesystem::create_directories(folder);
  }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder / name).parent_path());
    write_file_atomically(folder / name, text);
  }
  void config(const std::string& name, const std::string& more = "") const {
    write("resolved_config.yaml", fmt::format("run:\n  name: {}\nmodel:\n  hidden_size: 12\n{}", name, more));
  }
  void metrics(int64_t steps, double shift = 0) const {
    std::string text;
    for (int64_t step = 1; step <= steps; ++step) {
      const double loss = 2.0 + shift + 3.0 / static_cast<double>(step);
      text += train::render_metrics_line(
          step, 1000.0 + 0.5 * static_cast<double>(step),
          std::vector<Metric>{{"train/loss", loss},
                              {"train/bits_per_byte", loss * 1.4},
                              {"train/lr", 1e-3},
                              {"train/grad_norm", 0.3 + 0.01 * static_cast<double>(step % 7)},
                              {"train/tokens", static_cast<double>(1000 * step)},
                              {"train/skipped_steps", 0.0},
                              {"perf/tokens_per_second", 1234.5},
                              {"moe/load_max_over_mean", 1.25},
                              {"moe/load_entropy", 0.97},
                              {"moe/dead_share", 0.0},
                              {"moe/drop_rate", 0.0},
                              {"moe/z_loss", 0.5}});
      if (step % 4 == 0) {
        text += train::render_metrics_line(
            step, 1000.2 + 0.5 * static_cast<double>(step),
            std::vector<Metric>{{"valid/loss", loss + 0.1}, {"valid/bits_per_byte", loss + 0.123456789012}});
      }
    }
    write("metrics.jsonl", text);
  }
  RoutingRecord routing(int64_t step) const {
    RoutingRecord record{.step = step, .num_tokens = 90, .domains = {"prose", "code <&>", "notes"}};
    for (int layer : {1, 3}) {
      LayerRecord l{.layer = layer, .router_entropy = 0.5, .token_information_bits = 0.25};
      for (int e = 0; e < 5; ++e) {
        const double base = 10 + e + layer;
        l.experts.push_back({.requested = 3 * base + e,
                             .kept = 3 * base,
                             .by_domain = {base, base + e, base},
                             .frequent = {{.token = 60, .bytes = "<", .amount = 7, .share = 0.5}},
                             .distinctive = {{.token = 256, .amount = 3, .share = 0.25}}});
      }
      record.layers.push_back(l);
    }
    write(fmt::format("routing/step-{:08}.json", step), render_routing_record(record));
    return record;
  }
  std::filesystem::path folder;
};

std::string exact(double value) {
  return fmt::format("<data value=\"{}\">", train::json_number(value));
}

TEST(Report, IsWellFormedAndSelfContainedAndHasItsParts) {
  const TemporaryFolder folder;
  const WrittenRun run(folder / "a");
  run.config("first");
  run.metrics(80);
  run.routing(4);
  run.routing(8);
  run.write("sample.txt", "Once upon a time");
  const auto page = render_report({read_run(run.folder)});
  EXPECT_EQ(page_problems(page), "");
  for (const char* id : {"learning", "balance", "experts", "tokens", "mechanics", "sample", "config"}) {
    EXPECT_TRUE(contains(page, fmt::format("<section id=\"{}\">", id))) << id;
  }
  EXPECT_TRUE(contains(page, "No request was dropped"));
  EXPECT_TRUE(contains(page, "prefers-color-scheme: dark"));
  EXPECT_TRUE(contains(page, "@media print"));
}

TEST(Report, ThePageCheckNoticesWhatItIsThereFor) {
  const std::string good = "<html xmlns=\"http://www.w3.org/1999/xhtml\"><body><p>a</p></body></html>";
  EXPECT_EQ(page_problems(good), "");
  const auto with = [&](const std::string& text) {
    return page_problems(std::string(good).replace(good.find("a<"), 1, text));
  };
  EXPECT_TRUE(contains(with("a < b"), "not well-formed"));
  EXPECT_TRUE(contains(with("\x01"), "not well-formed"));
  EXPECT_TRUE(contains(with("<script/>"), "script"));
  EXPECT_TRUE(contains(with("<i src=\"x.png\"/>"), "src"));
  EXPECT_TRUE(contains(with("<rect x=\"nan\"/>"), "no number"));
}

TEST(Report, NumbersAreThoseOfTheMetricsToTheLastDigit) {
  const TemporaryFolder folder;
  const WrittenRun run(folder / "a");
  run.config("first");
  run.metrics(11);
  const auto data = read_run(run.folder);
  const auto page = render_report({data});
  for (const char* name : {"train/loss", "valid/loss", "valid/bits_per_byte", "train/tokens"}) {
    EXPECT_TRUE(contains(page, exact(data.metrics.at(name).values.back()))) << name;
  }
  EXPECT_TRUE(contains(page, exact(1234.5)));
  EXPECT_TRUE(contains(page, exact(11)));
  EXPECT_FALSE(contains(page, exact(data.metrics.at("valid/loss").values.front())));
}

TEST(Report, MutualInformationAndLoadEqualPlainLoopsOverTheRecord) {
  const TemporaryFolder folder;
  const WrittenRun run(folder / "a");
  run.metrics(9);
  run.routing(4);
  const auto record = run.routing(8);
  const auto page = render_report({read_run(run.folder)});
  for (const auto& layer : record.layers) {
    double sum = 0, bits = 0, largest = 0, requested = 0, kept = 0;
    double of_domain[3] = {}, of_expert[5] = {};
    for (int e = 0; e < 5; ++e) {
      const auto& expert = layer.experts[static_cast<size_t>(e)];
      for (size_t d = 0; d < 3; ++d) {
        sum += expert.by_domain[d];
        of_domain[d] += expert.by_domain[d];
        of_expert[e] += expert.by_domain[d];
      }
      largest = std::max(largest, expert.requested);
      requested += expert.requested;
      kept += expert.kept;
    }
    for (int e = 0; e < 5; ++e) {
      for (size_t d = 0; d < 3; ++d) {
        const double p = layer.experts[static_cast<size_t>(e)].by_domain[d] / sum;
        bits += p * std::log(p / (of_domain[d] / sum * of_expert[e] / sum)) / std::log(2.0);
      }
    }
    // The value in the page after this layer's row begins.
    const std::string row_start = fmt::format("<th scope=\"row\">layer {}</th>", layer.layer);
    const size_t row = page.find(row_start);
    ASSERT_NE(row, std::string::npos);
    const std::string cells = page.substr(row, page.find("</tr>", row) - row);
    std::vector<double> values;
    for (size_t at = cells.find("value=\""); at != std::string::npos; at = cells.find("value=\"", at + 1)) {
      values.push_back(std::stod(cells.substr(at + 7)));
    }
    ASSERT_EQ(values.size(), 7u);
    EXPECT_NEAR(values[0], largest / (requested / 5), 1e-12);
    EXPECT_NEAR(values[3], 1 - kept / requested, 1e-12);
    EXPECT_NEAR(values[5], bits, 1e-12);
    EXPECT_EQ(values[6], 0.25);
  }
}

TEST(Report, EveryTextIsEscaped) {
  const TemporaryFolder folder;
  const WrittenRun run(folder / "a");
  const std::string evil = "\"'><script>alert(1)</script>&amp;";
  run.write("resolved_config.yaml",
            "run:\n  name: 'x<b>&\"'\nnote: \""
            "<script>"
            "\"\n");
  run.metrics(5);
  run.routing(4);
  run.write("sample.txt", evil + std::string("\x01\x1b[31m\xff\xc3\x28\xed\xa0\x80 end\0.", 21));
  run.write("command.txt", "conclave train " + evil + "\n");
  const auto page = render_report({read_run(run.folder)});
  EXPECT_EQ(page_problems(page), "");
  EXPECT_FALSE(contains(page, "<script"));
  EXPECT_TRUE(contains(page, "&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;"));
  EXPECT_TRUE(contains(page, "<h1>x&lt;b&gt;&amp;&quot;</h1>"));
  EXPECT_TRUE(contains(page, "code &lt;&amp;&gt;"));
  EXPECT_TRUE(contains(page, "\u2401\u241b[31m\ufffd\ufffd("));
}

TEST(Report, SeveralRunsAreComparedWithOverlaidCurvesAndDifferingKeys) {
  const TemporaryFolder folder;
  const WrittenRun a(folder / "a"), b(folder / "b"), c(folder / "c");
  a.config("same", "training:\n  lr: 1\n  steps: 5\n");
  b.config("same", "training:\n  lr: 2\n  steps: 5\n");
  c.config("third", "training:\n  lr: 1\n  steps: 5\n");
  a.metrics(80);
  b.metrics(80, 0.5);
  c.metrics(3);
  a.routing(4);
  const auto page = render_report({read_run(a.folder), read_run(b.folder), read_run(c.folder)});
  EXPECT_EQ(page_problems(page), "");
  for (const auto* run : {&a, &b, &c}) {
    EXPECT_TRUE(contains(page, exact(read_run(run->folder).metrics.at("train/loss").values.back())));
  }
  EXPECT_TRUE(contains(page, "<code>training.lr</code>"));
  EXPECT_FALSE(contains(page, "<code>training.steps</code>"));
  const size_t learning = page.find("id=\"learning\"");
  const auto figure = page.substr(learning, page.find("</figure>", learning) - learning);
  for (const char* colour : {"line c0", "line c1", "line c2"})
    EXPECT_EQ(count_of(figure, colour), 1u) << colour;
  EXPECT_TRUE(contains(page, ">a<") && contains(page, ">b<"))
      << "runs of one name are told apart by their folders";
}

TEST(Report, PartialRunsAreShownAsFarAsTheyGo) {
  const TemporaryFolder folder;
  const WrittenRun young(folder / "young"), one(folder / "one"), dense(folder / "dense"),
      killed(folder / "killed");
  young.config("young");
  one.config("one");
  one.metrics(1);
  dense.write("metrics.jsonl",
              "{\"step\":1,\"time\":5,\"train/loss\":2.5}\n{\"step\":2,\"time\":6,\"train/loss\":2");
  killed.config("killed");
  killed.metrics(6);
  killed.write("STATUS.json", R"({"state": "running", "step": 4, "exit_reason": "", "eta_seconds": null})");
  for (const auto* run : {&young, &one, &dense, &killed}) {
    const auto page = render_report({read_run(run->folder)});
    EXPECT_EQ(page_problems(page), "") << run->folder;
    EXPECT_EQ(page.find("nan", page.find("<body>")), std::string::npos) << run->folder;
    EXPECT_FALSE(contains(page, "id=\"experts\"")) << run->folder;
  }
  EXPECT_TRUE(contains(render_report({read_run(young.folder)}), "No metrics were written yet"));
  EXPECT_TRUE(contains(render_report({read_run(dense.folder)}), exact(2.5)));
  EXPECT_TRUE(contains(render_report({read_run(killed.folder)}), "running or interrupted"));
  const auto all = render_report({read_run(young.folder), read_run(one.folder), read_run(dense.folder)});
  EXPECT_EQ(page_problems(all), "");
}

TEST(Report, ValuesThatAreNotFiniteAreMarkedAndNeverDrawn) {
  const TemporaryFolder folder;
  const WrittenRun run(folder / "a");
  std::string text;
  for (int64_t step = 1; step <= 9; ++step) {
    text += train::render_metrics_line(
        step, 5.0,
        std::vector<Metric>{
            {"train/loss", step == 5 || step == 9 ? NAN : 2.0 - 0.1 * static_cast<double>(step)},
            {"train/grad_norm", NAN}});
  }
  run.write("metrics.jsonl", text);
  const auto page = render_report({read_run(run.folder)});
  EXPECT_EQ(page_problems(page), "");
  EXPECT_EQ(count_of(page, "class=\"nan\""), 2u + 9u);
  EXPECT_TRUE(contains(page, "training, step 5: not finite"));
  EXPECT_TRUE(contains(page, exact(2.0 - 0.1 * 8))) << "the last finite loss is shown";
}

TEST(Report, BrokenInputsAreNamed) {
  const TemporaryFolder folder;
  const auto refusal = [](const std::filesystem::path& path) -> std::string {
    try {
      read_run(path);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_TRUE(contains(refusal(folder / "absent"), "there is no run folder"));
  EXPECT_TRUE(contains(refusal(folder.path()), "is no run folder"));
  const WrittenRun run(folder / "a");
  run.config("a");
  EXPECT_TRUE(contains(refusal(run.folder / "resolved_config.yaml"), "is a file"));
  run.write("metrics.jsonl", "{\"step\":1,\"time\":5}\nnonsense\n");
  EXPECT_TRUE(contains(refusal(run.folder), "metrics.jsonl:2"));
  run.metrics(3);
  run.write("routing/step-00000004.json", "{}");
  EXPECT_TRUE(contains(refusal(run.folder), "step-00000004.json"));
  std::filesystem::remove(run.folder / "routing/step-00000004.json");
  run.write("STATUS.json", "{");
  EXPECT_TRUE(contains(refusal(run.folder), "STATUS.json"));
  std::filesystem::remove(run.folder / "STATUS.json");
  run.write("resolved_config.yaml", "a: [1\n");
  EXPECT_TRUE(contains(refusal(run.folder), "resolved_config.yaml"));
  EXPECT_THROW(render_report({}), Error);
}

}  // namespace
