// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/json_reader.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "comma_locale.h"
#include "conclave/core/error.h"

namespace conclave::train {
namespace {

std::string json_error(const std::string& text, const JsonLimits& limits = {}) {
  try {
    parse_json(text, "a.json", limits);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kData);
    return error.what();
  }
  return "";
}

TEST(JsonReader, ReadsEveryKindOfValue) {
  const Json json = parse_json(R"({"a":[1,-2,2.5e-3,"\u00e9\n",true,null],"b":{}})", "a.json");
  const JsonReader root(json, "a.json");
  const auto items = root.at("a").items();
  ASSERT_EQ(items.size(), 6u);
  EXPECT_EQ(items[0].count(), 1u);
  EXPECT_EQ(items[1].number(), -2.0);
  EXPECT_EQ(items[2].number(), 0.0025);
  EXPECT_EQ(items[3].text(), "\xC3\xA9\n");
  EXPECT_TRUE(items[5].is_null());
  EXPECT_TRUE(root.at("b").members().empty());
  EXPECT_FALSE(root.find("c").has_value());
}

TEST(JsonReader, RefusesWhatALaxParserWouldPass) {
  EXPECT_EQ(json_error(R"({"a":1,"b":2,"a":3})"), "a.json: the key \"a\" stands twice");
  EXPECT_EQ(json_error(R"({"a":1} x)"), "a.json: not valid JSON at byte 8");
  EXPECT_EQ(json_error(std::string("{}\0{}", 5)), "a.json: not valid JSON at byte 2");
  EXPECT_NE(json_error("\xEF\xBB\xBF{}"), "");
  EXPECT_NE(json_error("{\"\xC0\xAF\":1}"), "") << "overlong UTF-8";
  EXPECT_NE(json_error("{\"\xED\xA0\x80\":1}"), "") << "a surrogate as UTF-8";
  EXPECT_NE(json_error("[1,]"), "");
  EXPECT_NE(json_error("[01]"), "");
  EXPECT_NE(json_error("[NaN]"), "");
  EXPECT_NE(json_error("// note\n[]"), "");
  EXPECT_NE(json_error(""), "");
  EXPECT_NE(json_error("[1e999]"), "");
}

TEST(JsonReader, BoundsDepthAndNumberOfValues) {
  EXPECT_EQ(json_error("[[[]]]", {.depth = 3}), "");
  EXPECT_EQ(json_error("[[[[]]]]", {.depth = 3}), "a.json: nested deeper than 3");
  EXPECT_NE(json_error(std::string(1'000'000, '[')), "");
  EXPECT_EQ(json_error("[1,2,3]", {.values = 4}), "");
  EXPECT_EQ(json_error("[1,2,3,4]", {.values = 4}), "a.json: more than 4 values");
}

TEST(JsonReader, WrongTypesNameThePlace) {
  const Json json = parse_json(R"({"a":[{"size":"7"},1.0,-1,9223372036854775808]})", "m.json");
  const auto items = JsonReader(json, "m.json").at("a").items();
  const auto message = [](auto&& f) -> std::string {
    try {
      f();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message([&] { items[0].at("size").count(); }),
            "m.json.a.0.size: expected a whole number >= 0, found a string");
  EXPECT_EQ(message([&] { items[0].at("name"); }), "m.json.a.0: the key 'name' is missing");
  EXPECT_EQ(message([&] { items[1].count(); }), "m.json.a.1: expected a whole number >= 0, found a number");
  EXPECT_NE(message([&] { items[2].count(); }), "");
  EXPECT_NE(message([&] { items[3].count(); }), "") << "does not fit int64";
  EXPECT_EQ(items[3].count(std::numeric_limits<uint64_t>::max()), uint64_t{1} << 63);
}

TEST(JsonReader, NumbersRoundTripAndNonFiniteBecomesNull) {
  for (const double value :
       {0.1, 1.0, -0.0, 1e-300, 5e-324, 1.7976931348623157e308, 2.0 / 3.0, 1234567890123.25}) {
    const Json json = parse_json(json_number(value), "n");
    const double back = JsonReader(json, "n").number();
    EXPECT_EQ(back, value) << json_number(value);
  }
  EXPECT_EQ(json_number(0.1), "0.1");
  EXPECT_EQ(json_number(std::nan("")), "null");
  EXPECT_EQ(json_number(-std::numeric_limits<double>::infinity()), "null");
}

TEST(JsonReader, QuotingEscapesAndRefusesInvalidUtf8) {
  EXPECT_EQ(json_quote("a\"\\\n\x01\xC3\xA9"), "\"a\\\"\\\\\\n\\u0001\xC3\xA9\"");
  EXPECT_THROW(json_quote("\xFF"), Error);
}

TEST(JsonReader, DoesNotDependOnTheLocale) {
  const CommaLocale locale;
  const Json json = parse_json("[2.5, -1.25e2]", "n");
  const auto items = JsonReader(json, "n").items();
  EXPECT_EQ(items[0].number(), 2.5);
  EXPECT_EQ(items[1].number(), -125.0);
  EXPECT_EQ(json_number(2.5), "2.5");
  if (!locale.active()) GTEST_SKIP() << "no locale with a decimal comma can be had here";
}

}  // namespace
}  // namespace conclave::train
