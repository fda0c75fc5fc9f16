#include "cli/plot/svg.h"

#include <array>
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "base/utf8.h"

namespace optserve::cli {
namespace {

constexpr double kMarkerRadius = 4.2;

std::string attribute(std::string_view name, std::string_view value) {
  return " " + std::string(name) + "=\"" + xml_escaped(value) + "\"";
}

std::string attribute(std::string_view name, double value) { return attribute(name, svg_number(value)); }

std::string stroke_attributes(const SvgStroke& stroke) {
  std::string text = attribute("stroke", stroke.color) + attribute("stroke-width", stroke.width);
  if (!stroke.dashes.empty()) text += attribute("stroke-dasharray", stroke.dashes);
  return text;
}

std::string point_list(const std::vector<SvgPoint>& points) {
  std::string text;
  for (const SvgPoint& point : points) {
    text += (text.empty() ? "" : " ") + svg_number(point.x) + "," + svg_number(point.y);
  }
  return text;
}

// Corners of a marker around its centre, in radii; none for the circle.
std::vector<SvgPoint> corners_of(SvgMarker shape) {
  switch (shape) {
    case SvgMarker::kSquare:
      return {{-0.9, -0.9}, {0.9, -0.9}, {0.9, 0.9}, {-0.9, 0.9}};
    case SvgMarker::kTriangle:
      return {{0, -1.2}, {1.1, 0.85}, {-1.1, 0.85}};
    case SvgMarker::kDiamond:
      return {{0, -1.3}, {1.3, 0}, {0, 1.3}, {-1.3, 0}};
    case SvgMarker::kTriangleDown:
      return {{0, 1.2}, {1.1, -0.85}, {-1.1, -0.85}};
    case SvgMarker::kCross:
      return {{-0.35, -1.1}, {0.35, -1.1}, {0.35, -0.35}, {1.1, -0.35}, {1.1, 0.35},   {0.35, 0.35},
              {0.35, 1.1},   {-0.35, 1.1}, {-0.35, 0.35}, {-1.1, 0.35}, {-1.1, -0.35}, {-0.35, -0.35}};
    case SvgMarker::kCircle:
      return {};
  }
  return {};
}

}  // namespace

std::string svg_number(double value) {
  check(std::isfinite(value), "a coordinate that is no number");
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.2f", value);
  return text.data();
}

std::string xml_escaped(std::string_view text) {
  const bool is_text = valid_utf8_prefix(std::string(text)) == text.size();
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += byte < 0x20 || (byte >= 0x80 && !is_text) ? '?' : c;
    }
  }
  return out;
}

SvgDrawing::SvgDrawing(double width, double height) {
  const std::string size = attribute("width", width) + attribute("height", height);
  out_ = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"" + size +
         " viewBox=\"0 0 " + svg_number(width) + " " + svg_number(height) +
         "\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n<rect" + size + " fill=\"#ffffff\"/>\n";
}

void SvgDrawing::line(SvgPoint from, SvgPoint to, const SvgStroke& stroke) {
  out_ += "<line" + attribute("x1", from.x) + attribute("y1", from.y) + attribute("x2", to.x) + attribute("y2", to.y) +
          stroke_attributes(stroke) + "/>\n";
}

void SvgDrawing::polyline(const std::vector<SvgPoint>& points, const SvgStroke& stroke) {
  out_ += "<polyline" + attribute("points", point_list(points)) + " fill=\"none\" stroke-linejoin=\"round\"" +
          stroke_attributes(stroke) + "/>\n";
}

void SvgDrawing::rectangle(SvgPoint corner, double width, double height, const SvgStroke& stroke,
                           std::string_view fill) {
  out_ += "<rect" + attribute("x", corner.x) + attribute("y", corner.y) + attribute("width", width) +
          attribute("height", height) + attribute("fill", fill) + stroke_attributes(stroke) + "/>\n";
}

void SvgDrawing::text(SvgPoint at, std::string_view content, const SvgText& style) {
  out_ += "<text" + attribute("x", at.x) + attribute("y", at.y) + attribute("font-size", style.size) +
          attribute("text-anchor", style.anchor) + attribute("fill", style.fill) +
          (style.bold ? " font-weight=\"bold\"" : "") + ">" + xml_escaped(content) + "</text>\n";
}

void SvgDrawing::marker(SvgMarker shape, SvgPoint at, const SvgStroke& stroke, bool filled, std::string_view tooltip) {
  const std::string look = attribute("fill", filled ? stroke.color : "#ffffff") +
                           stroke_attributes({stroke.color, stroke.width, {}}) +
                           (tooltip.empty() ? "/>" : "><title>" + xml_escaped(tooltip) + "</title>");
  if (shape == SvgMarker::kCircle) {
    out_ += "<circle" + attribute("cx", at.x) + attribute("cy", at.y) + attribute("r", kMarkerRadius) + look +
            (tooltip.empty() ? "\n" : "</circle>\n");
    return;
  }
  std::vector<SvgPoint> corners = corners_of(shape);
  for (SvgPoint& corner : corners) corner = {at.x + corner.x * kMarkerRadius, at.y + corner.y * kMarkerRadius};
  out_ += "<polygon" + attribute("points", point_list(corners)) + look + (tooltip.empty() ? "\n" : "</polygon>\n");
}

void SvgDrawing::begin_group(std::string_view name) { out_ += "<g" + attribute("data-name", name) + ">\n"; }
void SvgDrawing::end_group() { out_ += "</g>\n"; }

std::string SvgDrawing::finish() { return std::move(out_) + "</svg>\n"; }

}  // namespace optserve::cli
