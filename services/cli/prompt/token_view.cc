#include "cli/prompt/token_view.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace optserve::cli {
namespace {

struct ProbabilityColour {
  double at_least;
  const char* code;
  const char* meaning;
};
constexpr ProbabilityColour kProbabilityColours[] = {
    {0.75, "\x1b[32m", "75% or more"},
    {0.40, "\x1b[36m", "40%"},
    {0.10, "\x1b[33m", "10%"},
    {0.00, "\x1b[31m", "less"},
};
constexpr const char* kColourEnd = "\x1b[0m";

const char* colour_of(double probability) {
  for (const ProbabilityColour& colour : kProbabilityColours) {
    if (probability >= colour.at_least) return colour.code;
  }
  return "";
}

std::string percent_text(double probability) {
  const std::string number = std::to_string(std::lround(100 * probability));
  return std::string(3 - std::min<size_t>(3, number.size()), ' ') + number + "%";
}

std::string legend() {
  std::string text = "\n(";
  for (const ProbabilityColour& colour : kProbabilityColours) {
    text += (text.size() > 2 ? ", " : "") + std::string(colour.code) + colour.meaning + kColourEnd;
  }
  return text + ")\n";
}

}  // namespace

void TokenView::add(std::string_view piece, size_t tokens) {
  if (!pieces_.empty() && tokens < pieces_.back().end) pieces_.clear();
  if (piece.empty() || tokens == 0) return;
  if (!pieces_.empty() && tokens == pieces_.back().end) {  // the rest of what a token brought
    pieces_.back().text += piece;
    return;
  }
  pieces_.push_back({std::string(piece), tokens});
}

std::string TokenView::show(std::string_view text, const std::vector<float>& logprobs, bool in_colours) const {
  std::string joined, shown;
  size_t begin = 0;
  for (const Piece& piece : pieces_) {
    joined += piece.text;
    const size_t end = std::min(piece.end, logprobs.size());
    if (begin >= end) break;
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += logprobs[i];
    const double probability = std::exp(sum / static_cast<double>(end - begin));
    begin = end;
    if (in_colours) {
      shown += colour_of(probability) + piece.text + kColourEnd;
    } else {
      shown += percent_text(probability) + "  " + nlohmann::json(piece.text).dump() + "\n";
    }
  }
  if (joined != text) return "(the tokens of this answer are not known one by one)\n";
  return in_colours && !shown.empty() ? shown + legend() : shown;
}

}  // namespace optserve::cli
