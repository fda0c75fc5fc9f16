// The tokens of an answer with their probabilities. A client gets text and not tokens, so a token is what one event of
// the stream brought; where an event brought several, they are shown as one with the geometric mean of their
// probabilities.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace optserve::cli {

class TokenView {
 public:
  // A piece of text, which may be empty, and how many tokens have been generated with it. A smaller number than before
  // means that the text began anew.
  void add(std::string_view piece, size_t tokens);
  void clear() { pieces_.clear(); }

  // What to print after the answer `text`, whose tokens have these log-probabilities: in colours, or a line for each
  // token. Says so if the pieces do not fit the text.
  std::string show(std::string_view text, const std::vector<float>& logprobs, bool in_colours) const;

 private:
  struct Piece {
    std::string text;
    size_t end;  // tokens up to its end
  };
  std::vector<Piece> pieces_;
};

}  // namespace optserve::cli
