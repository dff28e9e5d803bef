// SPDX-License-Identifier: Apache-2.0
#include "conclave/config/describe.h"

#include <cstdlib>

#include "config/folder.h"

using namespace config_sample;

namespace {

struct Described {
  Root root = {};
  Tables t = tables();
};

TEST(Describe, all_keys_lists_every_section_item_and_plugin_option_once) {
  Described d;
  std::vector<std::string> paths;
  for (const auto& key : all_keys(declare(d.root), &d.t))
    paths.push_back(key.path + (key.plugin.empty() ? "" : " of " + key.plugin));
  EXPECT_EQ(paths, (std::vector<std::string>{"name",
                                             "note",
                                             "tags",
                                             "metrics",
                                             "seeds",
                                             "clip_grad",
                                             "keep_every",
                                             "moe",
                                             "moe.num_experts",
                                             "moe.layers",
                                             "moe.router",
                                             "moe.router.top_k of router 'topk'",
                                             "moe.router.norm_topk_prob of router 'topk'",
                                             "moe.router.capacity of router 'topk'",
                                             "moe.router.capacity.factor of router 'topk'",
                                             "moe.router.capacity.min of router 'topk'",
                                             "moe.router.capacity.order of router 'topk'",
                                             "moe.router.slots_per_expert of router 'soft'",
                                             "moe.noise",
                                             "moe.noise.weight of noise 'jitter'",
                                             "moe.aux_losses",
                                             "moe.aux_losses[].weight of aux_loss 'load_balancing'",
                                             "moe.aux_losses[].weight of aux_loss 'z_loss'",
                                             "train",
                                             "train[].path",
                                             "train[].weight",
                                             "training",
                                             "training.global_batch_size",
                                             "training.micro_batch_size",
                                             "training.precision",
                                             "training.lr",
                                             "training.betas",
                                             "training.deterministic"}));
}

std::string explain(const std::string& key) {
  Described d;
  return explain_key(declare(d.root), &d.t, key);
}

TEST(Describe, explain_tells_type_default_range_alias_and_guard) {
  EXPECT_EQ(explain("training.micro_batch_size"),
            "training.micro_batch_size\n           Sequences at once.\n  type     integer\n  default  6\n"
            "  range    >= 1 and <= 4096\n");
  EXPECT_EQ(explain("moe.router.capacity.min"),
            "moe.router.capacity.min  (of router 'topk')\n           Least slots.\n  type     integer\n  "
            "default  4\n"
            "  range    >= 0\n  refused  when factor is null\n");
  EXPECT_EQ(explain("moe.num_local_experts"),
            "moe.num_experts\n           Routed experts.\n  type     integer\n  default  8\n  range    >= 1\n"
            "  alias    num_local_experts\n");
  EXPECT_EQ(explain("train.3.path"),
            "train[].path\n           File.\n  type     string\n  default  none: the key is required\n");
  expect_part(explain("moe.aux_losses.0.weight"), "(of aux_loss 'load_balancing')\n");
  expect_part(explain("moe.aux_losses.0.weight"),
              "(of aux_loss 'z_loss')\n           Weight.\n  type     number or schedule\n"
              "  default  0.001\n");
  expect_part(explain("moe.router"), "  type     router: topk | soft\n  default  {type: topk, top_k: 2,");
  expect_part(explain("training"), "  keys\n    global_batch_size           Sequences a step.\n");
  expect_part(explain("training.precision"), "  type     fp32 | bf16\n  default  bf16\n");
  expect_part(explain("metrics"), "  type     list of jsonl | tensorboard | csv\n");
  expect_part(explain("moe.noise"), "  type     noise: none | jitter, or null\n");
}

TEST(Describe, explain_of_an_unknown_key_suggests_its_full_path) {
  const auto refusal = [](const std::string& key) -> std::string {
    try {
      return explain(key);
    } catch (const conclave::ConfigError& error) {
      return error.what();
    }
  };
  EXPECT_EQ(refusal("top_k"), "unknown key 'top_k'; did you mean moe.router.top_k?");
  EXPECT_EQ(
      refusal("weight"),
      "unknown key 'weight'; did you mean moe.noise.weight or moe.aux_losses[].weight or train[].weight?");
  EXPECT_EQ(refusal("moe_router_topk"), "unknown key 'moe_router_topk'; did you mean moe.router.top_k?");
  EXPECT_EQ(refusal("training.micro_batch_sise"),
            "unknown key 'training.micro_batch_sise'; did you mean 'training.micro_batch_size'?");
  EXPECT_EQ(refusal("qqqqqqqqqqqq"), "unknown key 'qqqqqqqqqqqq'; write the full path, such as training.lr");
}

TEST(Describe, the_reference_page_has_every_key_and_lists_those_that_take_schedules) {
  Described d;
  const std::string page = reference_page(declare(d.root), &d.t, "Configuration");
  for (const char* part :
       {"# Configuration\n\n## Top level\n", "\n## `training`\n",
        "\n### `moe.router`: router 'soft'\n\nMixes.\n",
        "| `micro_batch_size` | integer | `6` | >= 1 and <= 4096 | Sequences at once. |\n",
        "| `precision` | fp32 \\| bf16 | `bf16` |  | Arithmetic. |\n",
        "| `path` | string |  |  | File. Required. |\n",
        "| `num_experts` | integer | `8` | >= 1 | Routed experts. Also read as: `num_local_experts`. |\n",
        "| `min` | integer | `4` | >= 0 | Least slots. Refused when factor is null. |\n", "- `training.lr`\n",
        "- `moe.router.capacity.factor` (router 'topk')\n"})
    expect_part(page, part);
  for (const auto& key : all_keys(declare(d.root), &d.t))
    expect_part(page, "| `" + key.path.substr(key.path.rfind('.') + 1) + "` | ");
}

TEST(Describe, a_plugin_that_holds_a_plugin_of_its_own_table_is_described_once) {
  struct Wrapper {
    Plugin inner = {.type = "plain", .options = {}};
    void fields(Fields& f) { f.plugin("inner", inner, "routers", "Wrapped."); }
  };
  Tables t = {{"routers",
               {{"plain", "Plain.", [] { return Empty{}; }}, {"wrap", "Wrap.", [] { return Wrapper{}; }}}}};
  Wrapper top;
  EXPECT_EQ(all_keys(declare(top), &t).size(), 2u);
  expect_part(json_schema(declare(top), &t, "x"), "\"$ref\": \"#/$defs/routers\"");
}

// The schema accepts what the reader accepts and refuses what it can express of the rest.
TEST(Schema, is_valid_and_agrees_with_the_reader) {
  if (std::system("python3 -c 'import jsonschema, yaml' 2>/dev/null") != 0)
    GTEST_SKIP() << "python3 has no jsonschema or no yaml module: the schema was not checked";
  Described d;
  const Folder folder;
  const auto schema = folder.write("schema.json", json_schema(declare(d.root), &d.t, "Sample"));
  const char* const good[] = {"{}",
                              "base: other.yaml",
                              "name: 123",
                              "note: null",
                              "seeds: [1, 2k, 1_000]",
                              "clip_grad: null",
                              "tags: {a: b, c: 3}",
                              "moe: null",
                              "moe: {num_local_experts: 3}",
                              "moe: {router: {top_k: 3}}",
                              "moe: {router: {type: soft}}",
                              "moe: {router: {type: topk, capacity: {factor: 1.25, min: 3}}}",
                              "moe: {noise: null}",
                              "moe: {noise: {type: none}}",
                              "moe: {aux_losses: [{type: z_loss, weight: 1.0e-03}, {type: load_balancing}]}",
                              "keep_every: ${env:X,5}",
                              "training: {lr: {schedule: cosine, from: 1.0, to: 0.5, end_step: 9}}",
                              "training: {global_batch_size: 1.2k}",
                              "train: [{path: a, weight: 0.5}]",
                              "training: {precision: '${env:P,bf16}'}",
                              "metrics: [csv]"};
  const char* const bad[] = {"nome: a",
                             "training: {micro_batch_size: 0}",
                             "training: {micro_batch_size: many}",
                             "training: {precision: fp16}",
                             "training: null",
                             "training: {lr: -1.0}",
                             "training: {lr: {schedule: linaer, from: 1}}",
                             "training: {lr: {from: 1}}",
                             "moe: {router: {type: tpok}}",
                             "moe: {router: {type: soft, top_k: 2}}",
                             "moe: {router: null}",
                             "moe: {router: soft}",
                             "moe: {aux_losses: [{weight: 1.0}]}",
                             "moe: {num_experts: [1]}",
                             "train: {path: a}",
                             "metrics: [xml]",
                             "clip_grad: {schedule: linear}",
                             "seeds: 3",
                             "tags: [a]",
                             "training: {betas: [0.9, 1.0]}",
                             "train: [{path: a, wight: 1}]"};
  std::string cases;
  for (const char* yaml : good) {
    const std::string_view text = yaml;
    const bool is_final = text.find("${") == std::string_view::npos && !text.starts_with("base");
    EXPECT_EQ(is_final ? errors_of(yaml) : "", "") << yaml;
    cases += std::string("good ") + yaml + "\n";
  }
  for (const char* yaml : bad) {
    EXPECT_NE(errors_of(yaml), "") << yaml;
    cases += std::string("bad ") + yaml + "\n";
  }
  cases += "good " + emit_yaml_inline(dump_fields(declare(d.root), &d.t, nullptr)) + "\n";
  const auto program = folder.write("check.py", R"(
import json, sys, yaml, jsonschema
schema = json.load(open(sys.argv[1], encoding='utf-8'))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
failed = False
for line in open(sys.argv[2], encoding='utf-8'):
    kind, text = line.rstrip('\n').split(' ', 1)
    if validator.is_valid(yaml.safe_load(text)) != (kind == 'good'):
        print('wrong verdict:', line)
        failed = True
sys.exit(failed)
)");
  const auto list = folder.write("cases.txt", cases);
  const std::string command = "python3 " + program.string() + " " + schema.string() + " " + list.string();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
