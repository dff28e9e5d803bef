// SPDX-License-Identifier: Apache-2.0
#include <clocale>
#include <locale>

#include "conclave/config/scalars.h"
#include "config/sample.h"

using namespace config_sample;

namespace {

TEST(Scalars, whole_numbers_take_units_of_thousands_and_of_1024) {
  EXPECT_EQ(parse_integer("4M"), 4000000);
  EXPECT_EQ(parse_integer("3k"), 3000);
  EXPECT_EQ(parse_integer("3K"), 3000);
  EXPECT_EQ(parse_integer("2GB"), 2000000000);
  EXPECT_EQ(parse_integer("5T"), 5000000000000);
  EXPECT_EQ(parse_integer("64KiB"), 65536);
  EXPECT_EQ(parse_integer("3Mi"), 3145728);
  EXPECT_EQ(parse_integer("1GiB"), 1073741824);
  EXPECT_EQ(parse_integer("1Ti"), 1099511627776);
  EXPECT_EQ(parse_integer("-4k"), -4000);
  EXPECT_EQ(parse_integer("+7"), 7);
  EXPECT_EQ(parse_integer("1_000_000"), 1000000);
  EXPECT_EQ(parse_integer("0.5M"), 500000);
  EXPECT_EQ(parse_integer("4.35M"), 4350000);
  EXPECT_EQ(parse_integer("1e6"), 1000000);
  EXPECT_EQ(parse_integer("9223372036854775807"), INT64_MAX);
  EXPECT_EQ(parse_integer("-9223372036854775808"), INT64_MIN);
}

TEST(Scalars, what_is_no_whole_number_is_refused) {
  for (const char* bad : {"",
                          "12abc",
                          "1__0",
                          "_1",
                          "1_",
                          "nan",
                          "inf",
                          ".inf",
                          "-.inf",
                          "1.5",
                          "0x10",
                          "0o7",
                          "2B",
                          "B",
                          "1 000",
                          "1,000",
                          "--1",
                          "+-1",
                          "-+1",
                          "-",
                          "+",
                          "1e",
                          "1e-1",
                          "9223372036854775808",
                          "-9223372036854775809",
                          "9223372036854775807k",
                          "10000000000G",
                          "1e19",
                          "1e300",
                          "1KB i",
                          "4m",
                          "4Mb",
                          "4MiBB",
                          "true",
                          "1e1e1",
                          " 1",
                          "1 "}) {
    EXPECT_FALSE(parse_integer(bad).has_value()) << "'" << bad << "'";
  }
}

TEST(Scalars, numbers_are_read_to_the_nearest_double) {
  EXPECT_EQ(parse_number("4e-4"), 4e-4);
  EXPECT_EQ(parse_number("1.0E+03"), 1000.0);
  EXPECT_EQ(parse_number(".5"), 0.5);
  EXPECT_EQ(parse_number("5."), 5.0);
  EXPECT_EQ(parse_number("1_0.2_5"), 10.25);
  EXPECT_EQ(parse_number("0.1k"), 100.0);
  EXPECT_EQ(parse_number("1e3k"), 1e6);
  EXPECT_EQ(parse_number("1.5Ki"), 1536.0);
  EXPECT_EQ(parse_number("-0.0"), 0.0);
  EXPECT_EQ(parse_number("1.7976931348623157e308"), 1.7976931348623157e308);
  for (const char* bad :
       {"",      ".",      "-",      "nan",           "NaN",   ".nan",  "inf", "-inf",  "infinity", ".inf",
        "1e400", "-1e400", "1e306k", "1e99999999999", "1e+-3", "0x1p3", "1,5", "1.2.3", "e5",       "1e5 "}) {
    EXPECT_FALSE(parse_number(bad).has_value()) << "'" << bad << "'";
  }
}

TEST(Scalars, floats_are_written_short_with_a_point_and_read_back_exactly) {
  EXPECT_EQ(format_number(1e-8), "1.0e-08");
  EXPECT_EQ(format_number(1.5e-3), "0.0015");
  EXPECT_EQ(format_number(0.1), "0.1");
  EXPECT_EQ(format_number(3.0), "3.0");
  EXPECT_EQ(format_number(-0.0), "-0.0");
  EXPECT_EQ(format_number(2e9), "2000000000.0");
  EXPECT_EQ(format_number(1e22), "1.0e+22");
  EXPECT_EQ(format_number(1.25e-30), "1.25e-30");
  EXPECT_EQ(format_number(1e300), "1.0e+300");
  for (double value = 1e-300; value < 1e300; value *= -137.035999) {
    EXPECT_EQ(parse_number(format_number(value)), value);
    if (std::abs(value) > 1e290) break;
  }
  EXPECT_EQ(parse_number(format_number(0.1 + 0.2)), 0.1 + 0.2);
  EXPECT_EQ(parse_number(format_number(5e-324)), 5e-324);
}

TEST(Scalars, booleans_are_true_and_false_only) {
  EXPECT_EQ(parse_boolean("true"), true);
  EXPECT_EQ(parse_boolean("False"), false);
  for (const char* bad : {"yes", "no", "on", "off", "1", "0", "tRue", "y", ""})
    EXPECT_FALSE(parse_boolean(bad)) << bad;
}

TEST(Scalars, words_that_some_yaml_reader_takes_for_something_else_are_quoted) {
  for (const char* word : {"",
                           "null",
                           "NULL",
                           "~",
                           "yes",
                           "No",
                           "ON",
                           "off",
                           "y",
                           "N",
                           "true",
                           "123",
                           "-1",
                           "+1",
                           "1e5",
                           ".5",
                           ".inf",
                           "-.INF",
                           ".NaN",
                           "0x1F",
                           "0o7",
                           "1:30",
                           "2001-12-14",
                           "1_000",
                           "=",
                           "<<",
                           "- a",
                           "? a",
                           "a: b",
                           "a:",
                           "a #b",
                           " a",
                           "a ",
                           "#a",
                           "[a",
                           "{a",
                           "a, b",
                           "a]",
                           "\"a\"",
                           "'a'",
                           "%a",
                           "@a",
                           "`a",
                           "!a",
                           "&a",
                           "*a",
                           "|",
                           ">",
                           "a\nb",
                           "a\tb",
                           "---",
                           "...",
                           "-",
                           "4M",
                           "${run.name}",
                           "a\xC2\x85"
                           "b",
                           "a\xE2\x80\xA8"
                           "b",
                           "\xEF\xBB\xBF"
                           "a",
                           "-a: b"}) {
    EXPECT_TRUE(needs_quotes(word)) << word;
  }
  for (const char* word : {"a", "runs/quick", "a b", "a:b", "a#b", "http://x", "../up", "./here", "-abc",
                           "école", "it's", "nullable", "yesterday", "a.b-c_d"}) {
    EXPECT_FALSE(needs_quotes(word)) << word;
  }
}

struct CommaNumbers : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

TEST(Scalars, a_decimal_comma_locale_changes_neither_reading_nor_writing) {
  const std::string yaml = "training:\n  lr: 1.25\n  global_batch_size: 1_200_000\n";
  Root root = read(yaml);
  const std::string plain = dump(root);
  const std::locale before = std::locale::global(std::locale(std::locale(), new CommaNumbers));
  const std::string old_c = std::setlocale(LC_ALL, nullptr);
  for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8"}) {
    if (std::setlocale(LC_NUMERIC, name))
      break;  // the facet above stands in where no such locale is installed
  }
  Root again = read(yaml);
  const std::string under_comma = dump(again);
  const std::string refused = errors_of("training: {lr: \"1,25\"}\nclip_grad: 1,25\n");
  std::setlocale(LC_ALL, old_c.c_str());
  std::locale::global(before);
  EXPECT_EQ(again.training.lr.at(0), 1.25);
  EXPECT_EQ(again.training.global_batch_size, 1200000);
  EXPECT_EQ(under_comma, plain);
  expect_part(refused, "clip_grad: expected a number, got '1,25'");
  expect_part(refused, "2 errors");
}

}  // namespace
