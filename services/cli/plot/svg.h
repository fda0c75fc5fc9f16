// The few shapes that a picture of ours is made of, as the text of an SVG file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace optserve::cli {

struct SvgPoint {
  double x = 0;
  double y = 0;
};

// How a text stands at its point.
struct SvgText {
  double size = 12;
  std::string_view anchor = "start";  // start, middle or end
  std::string_view fill = "#333333";
  bool bold = false;
};

enum class SvgMarker { kCircle, kSquare, kTriangle, kDiamond, kTriangleDown, kCross };
inline constexpr int kSvgMarkers = 6;

struct SvgStroke {
  std::string color;
  double width = 1;
  std::string dashes;  // "6 4"; empty: solid
};

class SvgDrawing {
 public:
  SvgDrawing(double width, double height);

  void line(SvgPoint from, SvgPoint to, const SvgStroke& stroke);
  void polyline(const std::vector<SvgPoint>& points, const SvgStroke& stroke);
  void rectangle(SvgPoint corner, double width, double height, const SvgStroke& stroke, std::string_view fill);
  void text(SvgPoint at, std::string_view content, const SvgText& style);
  // Filled with the stroke's colour, or hollow; `tooltip` shows where pictures are interactive.
  void marker(SvgMarker shape, SvgPoint at, const SvgStroke& stroke, bool filled, std::string_view tooltip);
  void begin_group(std::string_view name);
  void end_group();

  std::string finish();  // the whole file

 private:
  std::string out_;
};

// A number as SVG wants it: at most two decimals, always with a point.
std::string svg_number(double value);
// Content that may stand between tags and in attributes; bytes that XML cannot hold become '?'.
std::string xml_escaped(std::string_view text);

}  // namespace optserve::cli
