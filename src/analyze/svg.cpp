// SPDX-License-Identifier: Apache-2.0
#include "conclave/analyze/svg.h"

#include <cmath>

#include <fmt/format.h>

#include "conclave/analyze/format.h"

namespace conclave::analyze {

namespace {

// The element's end: with a tooltip inside or closed at once.
std::string close_element(const char* name, const std::string& title) {
  return title.empty() ? "/>" : fmt::format("><title>{}</title></{}>", escape(title), name);
}

}  // namespace

std::string coordinate(double value) {
  std::string text = fmt::format("{:.2f}", std::isfinite(value) ? value : 0.0);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string svg_line(double x1, double y1, double x2, double y2, const std::string& classes) {
  return fmt::format("<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>", classes, coordinate(x1),
                     coordinate(y1), coordinate(x2), coordinate(y2));
}

std::string svg_rect(double x, double y, double width, double height, const std::string& classes,
                     const std::string& title) {
  return fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{}", classes,
                     coordinate(x), coordinate(y), coordinate(width), coordinate(height),
                     close_element("rect", title));
}

std::string svg_circle(double x, double y, double radius, const std::string& classes,
                       const std::string& title) {
  return fmt::format("<circle class=\"{}\" cx=\"{}\" cy=\"{}\" r=\"{}\"{}", classes, coordinate(x),
                     coordinate(y), coordinate(radius), close_element("circle", title));
}

std::string svg_path(const Points& points, const std::string& classes) {
  std::string d;
  for (const auto& [x, y] : points) {
    d += fmt::format("{}{} {}", d.empty() ? "M" : "L", coordinate(x), coordinate(y));
  }
  return fmt::format("<path class=\"{}\" d=\"{}\"/>", classes, d);
}

std::string svg_text(double x, double y, Anchor anchor, const std::string& classes, const std::string& text) {
  const char* where = anchor == Anchor::kStart ? "start" : anchor == Anchor::kMiddle ? "middle" : "end";
  return fmt::format("<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>", classes,
                     coordinate(x), coordinate(y), where, escape(text));
}

std::string render_figure(const Figure& figure) {
  std::string caption = fmt::format("<b>{}</b>", escape(figure.title));
  if (!figure.unit.empty()) caption += fmt::format(" <span class=\"unit\">{}</span>", escape(figure.unit));
  if (!figure.note.empty()) caption += fmt::format(" <span class=\"note\">{}</span>", escape(figure.note));
  return fmt::format(
      "<figure class=\"{}\"><figcaption>{}</figcaption>\n<svg role=\"img\" aria-label=\"{}\" "
      "viewBox=\"0 0 {} {}\">{}</svg></figure>\n",
      figure.classes, caption, escape(figure.label.empty() ? figure.title : figure.label),
      coordinate(figure.width), coordinate(figure.height), figure.body);
}

}  // namespace conclave::analyze
