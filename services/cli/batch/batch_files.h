// The files of `optserve batch`. Until all lines are answered, answers and errors lie in OUT.part and ERRORS.part, and
// OUT.run says which run they belong to, so that the same command goes on after any kill.
#pragma once

#include <optional>
#include <string>

#include "base/file_lock.h"

namespace optserve::cli {

struct BatchPaths {
  std::string input, answers, errors;

  std::string answers_part() const { return answers + ".part"; }
  std::string errors_part() const { return errors + ".part"; }
  std::string run_note() const { return answers + ".run"; }
};

class BatchFiles {
 public:
  // Begins a run, or goes on with the one that was begun over the same input. `restart`: forgets an earlier run and its
  // answers. Throws CommandFailure if another process is working on it, if the input has changed since, or if there are
  // answers already.
  BatchFiles(BatchPaths paths, bool restart);

  const std::string& run() const { return run_; }
  bool is_resumed() const { return is_resumed_; }
  // All lines are answered: gives the files their names. A file of errors without errors is removed.
  void finish(bool has_errors);

 private:
  void lock();
  void begin(const std::string& input);
  void resume(const std::string& note, const std::string& input);

  BatchPaths paths_;
  std::optional<FileLock> lock_;
  std::string run_;
  bool is_resumed_ = false;
};

}  // namespace optserve::cli
