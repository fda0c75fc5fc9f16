// Writes an SVG file of lines, texts and markers, which is all that the plot needs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace optserve::cli {

struct SvgPoint {
  double x = 0;
  double y = 0;
};

// The look of a text and its alignment at its point.
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
  // Filled with the stroke's colour, or hollow. Viewers show `tooltip` under the mouse.
  void marker(SvgMarker shape, SvgPoint at, const SvgStroke& stroke, bool filled, std::string_view tooltip);
  void begin_group(std::string_view name);
  void end_group();

  std::string finish();  // the whole file

 private:
  std::string out_;
};

// A number with two decimals after a point, in every locale.
std::string svg_number(double value);
// The text escaped for content and attributes of XML. Bytes that XML cannot hold become '?'.
std::string xml_escaped(std::string_view text);

}  // namespace optserve::cli
