// SPDX-License-Identifier: Apache-2.0
#include "config/sample.h"

using namespace config_sample;

namespace {

struct Refusal {
  const char* yaml;
  const char* report;  // all of it
};

class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, names_place_reason_and_remedy) {
  EXPECT_EQ(errors_of(GetParam().yaml), std::string(GetParam().report) + "1 error; nothing was started.");
}

INSTANTIATE_TEST_SUITE_P(
    Yaml, Refused,
    testing::Values(
        Refusal{"name: a\nnote: b\nname: c\n",
                "a.yaml:3:1: error: key 'name' stands twice (first on line 1, again on line 3)\n"
                "    3 | name: c\n      | ^~~~\n   keep one of the two\n"},
        Refusal{"name: a\n---\nname: b\n",
                "a.yaml:2:1: error: a second YAML document starts here\n    2 | ---\n      | ^~~\n"
                "   keep one document; remove the '---' line or what follows it\n"},
        Refusal{"name: &x a\n",
                "a.yaml:1:7: error: anchors and aliases are not supported\n    1 | name: &x a\n"
                "      |       ^\n   write the value out, or share settings through 'base:'\n"},
        Refusal{"name: *x\n",
                "a.yaml:1:7: error: anchors and aliases are not supported\n    1 | name: *x\n"
                "      |       ^\n   write the value out, or share settings through 'base:'\n"},
        Refusal{"moe:\n  <<: {num_experts: 3}\n",
                "a.yaml:2:3: error: merge keys ('<<') are not supported\n    2 |   <<: {num_experts: 3}\n"
                "      |   ^~\n   share settings through 'base:'\n"},
        Refusal{"name: !!str a\n",
                "a.yaml:1:7: error: YAML tags are not supported\n    1 | name: !!str a\n"
                "      |       ^\n   write the plain value; quote a string\n"},
        Refusal{"name: ! a\n",
                "a.yaml:1:7: error: YAML tags are not supported\n    1 | name: ! a\n"
                "      |       ^\n   write the plain value; quote a string\n"},
        Refusal{"note: !!str null\n",
                "a.yaml:1:7: error: YAML tags are not supported\n    1 | note: !!str null\n"
                "      |       ^\n   write the plain value; quote a string\n"},
        Refusal{"",
                "a.yaml:1:1: error: the file is empty\n   write {} for a configuration of defaults only\n"},
        Refusal{"# only a comment\n",
                "a.yaml:1:1: error: the file is empty\n    1 | # only a comment\n      | ^\n"
                "   write {} for a configuration of defaults only\n"},
        Refusal{"---\n",
                "a.yaml:1:1: error: the file is empty\n    1 | ---\n      | ^\n"
                "   write {} for a configuration of defaults only\n"},
        Refusal{"[1, 2]\n",
                "a.yaml:1:1: error: the top of the file must be a map of keys\n    1 | [1, 2]\n"
                "      | ^\n   write 'key: value' lines\n"},
        Refusal{"just words\n",
                "a.yaml:1:1: error: the top of the file must be a map of keys\n    1 | just words\n"
                "      | ^~~~~~~~~~\n   write 'key: value' lines\n"},
        Refusal{"training:\n\tlr: 1.0\n",
                "a.yaml:2:1: error: a tab in the indentation\n    2 | \tlr: 1.0\n"
                "      | ^\n   indent with spaces\n"},
        Refusal{"name: b\ntraining: {lr: 1.0\n",
                "a.yaml:3:1: error: not well-formed YAML: end of map flow not found\n"
                "   check the indentation, brackets and quotes here; quote a value that contains ': ', ' #' "
                "or '${'\n"},
        Refusal{"name: a: b\n",
                "a.yaml:1:8: error: not well-formed YAML: illegal map value\n    1 | name: a: b\n      |     "
                "   ^\n"
                "   check the indentation, brackets and quotes here; quote a value that contains ': ', ' #' "
                "or '${'\n"},
        Refusal{"? [a]\n: 1\n",
                "a.yaml:1:3: error: a key must be a plain word\n    1 | ? [a]\n      |   ^\n"
                "   write 'key: value'; quote a value that contains brackets\n"},
        Refusal{"~: 1\n",
                "a.yaml:1:1: error: null is not a key\n    1 | ~: 1\n      | ^\n"
                "   write 'key: value'; quote a value that contains brackets\n"},
        Refusal{"name: é\nnote: \xff\n",
                "a.yaml:2:7: error: byte 15 is not valid UTF-8\n    2 | note: ?\n"
                "      |       ^\n   save the file as UTF-8\n"},
        Refusal{"name: a\rnote: b\n",
                "a.yaml:1:8: error: control character 0x0d\n    1 | name: a?note: b\n"
                "      |        ^\n   end lines with \\n or \\r\\n\n"},
        Refusal{"name: a\x01\n",
                "a.yaml:1:8: error: control character 0x01\n    1 | name: a?\n      |        ^\n"
                "   remove it, or write it as an escape in \"...\"\n"}));

TEST(Parse, every_refused_construct_of_a_file_is_reported_at_once) {
  const std::string got = errors_of("name: &x a\nnote: *x\ntags: !!map {a: 1}\nname: b\n<<: {}\n");
  for (const char* part :
       {"a.yaml:1:7: error: anchors", "a.yaml:2:7: error: anchors", "a.yaml:3:7: error: YAML tags",
        "a.yaml:4:1: error: key 'name' stands twice", "a.yaml:5:1: error: merge keys", "5 errors"})
    expect_part(got, part);
}

TEST(Parse, overlong_forms_and_surrogates_are_not_utf8) {
  for (const char* bad : {"\xC0\xAF", "\xE0\x80\xAF", "\xF0\x80\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xE2\x82", "\x80"})
    expect_part(errors_of(std::string("name: ") + bad), "a.yaml:1:7: error: byte 6 is not valid UTF-8");
  for (const char* good :
       {"\xC2\x80", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(read(std::string("name: \"a") + good + "\"").name, std::string("a") + good);
}

TEST(Parse, a_text_over_one_mebibyte_is_refused) {
  const std::string head = "name: a\n#";
  const std::string fits = head + std::string((1 << 20) - head.size(), 'x');
  EXPECT_EQ(errors_of(fits), "");
  expect_part(errors_of(fits + "x"),
              "a.yaml:1:1: error: the text has 1048577 bytes; at most 1048576 are read");
}

TEST(Parse, a_hundred_levels_are_read_and_no_more) {
  const auto nested = [](size_t levels) {  // the top map is the first level
    return "name: " + std::string(levels - 1, '[') + std::string(levels - 1, ']') + "\n";
  };
  EXPECT_NO_THROW(parse_yaml("a.yaml", nested(100)));
  expect_part(errors_of(nested(101)), "a.yaml:1:106: error: more than 100 levels of nesting");
  expect_part(errors_of("name: " + std::string(500000, '[')), "more than 100 levels of nesting");
  std::string blocks;
  for (size_t i = 0; i < 300; ++i) blocks += std::string(i, ' ') + "a:\n";
  expect_part(errors_of(blocks), "a.yaml:101:101: error: more than 100 levels of nesting");
}

TEST(Parse, byte_order_mark_and_windows_line_ends_change_no_position) {
  expect_part(errors_of("\xEF\xBB\xBFnam: a\r\nnote: 1\r\nnot: 2\r\n"),
              "a.yaml:1:1: error: unknown key 'nam'");
  expect_part(errors_of("\xEF\xBB\xBFname: a\r\nnote: 1\r\nnot: 2\r\n"), "    3 | not: 2\n      | ^~~\n");
}

TEST(Parse, columns_count_bytes_and_the_caret_counts_characters) {
  EXPECT_EQ(errors_of("{name: äöü, nome: ß}\n"),
            "a.yaml:1:16: error: unknown key 'nome' at the top\n    1 | {name: äöü, nome: ß}\n"
            "      |             ^~~~\n   did you mean 'name'?  (other keys here: note, tags, metrics, "
            "seeds, clip_grad, "
            "keep_every, moe, train, training)\n1 error; nothing was started.");
}

TEST(Parse, a_long_line_is_shown_in_part_with_its_caret) {
  const std::string got =
      errors_of("tags: {a: " + std::string(3000, 'x') + "}\nname: " + std::string(3000, 'y') + "\n" +
                "{bad: " + std::string(100, 'z'));
  EXPECT_LT(got.size(), 1000u);
  const std::string wide = errors_of("{" + std::string(500, ' ') + "nome: 1" + std::string(500, ' ') + "}\n");
  expect_part(wide, "a.yaml:1:502: error: unknown key 'nome'");
  expect_part(wide, "    1 | ...");
  const size_t caret = wide.find("^~~~"), word = wide.find("nome: 1");
  ASSERT_NE(caret, std::string::npos);
  EXPECT_EQ(caret - (wide.rfind('\n', caret) + 1), word - (wide.rfind('\n', word) + 1));
}

TEST(Parse, scalars_keep_text_and_quotes) {
  const Node node =
      parse_yaml("a", "a: 'it''s'\nb: \"x\\ty\"\nc: |\n  one\n  two\nd:\ne: ~\nf: plain # no\n");
  EXPECT_EQ(node.find("a")->text, "it's");
  EXPECT_TRUE(node.find("a")->quoted);
  EXPECT_EQ(node.find("a")->origin.length, 7);
  EXPECT_EQ(node.find("b")->text, "x\ty");
  EXPECT_EQ(node.find("b")->origin.length, 6);
  EXPECT_EQ(node.find("c")->text, "one\ntwo\n");
  EXPECT_EQ(node.find("d")->kind, Node::Kind::kNull);
  EXPECT_EQ(node.find("d")->origin.line, 6);
  EXPECT_EQ(node.find("e")->kind, Node::Kind::kNull);
  EXPECT_EQ(node.find("f")->text, "plain");
  EXPECT_FALSE(node.find("f")->quoted);
}

}  // namespace
