// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <utility>
#include <vector>

// The few shapes that the charts are made of. Colours and type come from the page's style sheet through class
// names, so that one picture serves light, dark and print. `title` is the tooltip, "" for none; it and all
// texts are escaped here.
namespace conclave::analyze {

using Points = std::vector<std::pair<double, double>>;

// At most two decimals; never "-0", never an exponent.
std::string coordinate(double value);

std::string svg_line(double x1, double y1, double x2, double y2, const std::string& classes);
std::string svg_rect(double x, double y, double width, double height, const std::string& classes,
                     const std::string& title = "");
std::string svg_circle(double x, double y, double radius, const std::string& classes,
                       const std::string& title = "");
std::string svg_path(const Points& points, const std::string& classes);
enum class Anchor { kStart, kMiddle, kEnd };
std::string svg_text(double x, double y, Anchor anchor, const std::string& classes, const std::string& text);

// <figure> with a caption above the picture. `label` describes the picture to those who cannot see it.
struct Figure {
  std::string title = {}, unit = {}, note = {};
  std::string label = {};
  double width = 520, height = 240;
  std::string body = {};
  std::string classes = "chart";
};
std::string render_figure(const Figure& figure);

}  // namespace conclave::analyze
