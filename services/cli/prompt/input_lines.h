// Where the lines of `optserve prompt` come from: a terminal, where they can be edited, or a pipe.
#pragma once

#include <memory>
#include <string>

namespace optserve::cli {

enum class LineOutcome {
  kLine,
  kEnd,          // of the input: Ctrl-D
  kInterrupted,  // shutdown_requested()
};

class InputLines {
 public:
  virtual ~InputLines() = default;
  // The next line without its line feed. `is_continuation`: it belongs to what was begun before.
  virtual LineOutcome read(std::string& line, bool is_continuation) = 0;
};

// Standard input, read as it is. Of a line beyond 64 MiB the rest is dropped. Throws Error if it cannot be read.
std::unique_ptr<InputLines> lines_of_pipe();

// Standard input is a terminal: lines are edited, with history (libedit). The history is kept in `history_file`, at
// most 1,000 lines, readable by its owner alone; "": it is not kept. A file that cannot be used is reported on standard
// error and left alone.
std::unique_ptr<InputLines> lines_of_terminal(const std::string& history_file);

}  // namespace optserve::cli
