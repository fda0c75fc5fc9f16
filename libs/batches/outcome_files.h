// The two files that hold the answers to the lines of a run: one for results, one for errors. They are also the memory
// of the run: when it resumes after a kill, it reads from them which lines have been answered. A line is answered once,
// and an incomplete line at the end is removed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace optserve::batches {

class OutcomeFiles {
 public:
  // Creates the files, or opens those of the same run. Throws Error if they cannot be written or hold something else.
  OutcomeFiles(const std::string& answers, const std::string& errors, std::string run);
  ~OutcomeFiles();
  OutcomeFiles(const OutcomeFiles&) = delete;
  OutcomeFiles& operator=(const OutcomeFiles&) = delete;

  bool has(uint64_t number) const { return number < done_.size() && done_[number]; }
  uint64_t num_answers() const { return answers_.lines; }
  uint64_t num_errors() const { return errors_.lines; }

  // Adds a whole line with its line feed, whose number has not been answered. It is in the file after the next flush().
  void add_answer(uint64_t number, std::string_view line) { add(answers_, number, line); }
  void add_error(uint64_t number, std::string_view line) { add(errors_, number, line); }
  // Returns when everything is on the disk. Throws Error if that fails, for example because the disk is full.
  void flush();

 private:
  struct File {
    std::string path;
    int fd = -1;
    uint64_t lines = 0;
    uint64_t bytes = 0;  // of whole lines that are written
    std::string waiting{};
  };
  void open(File& file, const std::string& path);
  void read_lines(File& file);
  void add(File& file, uint64_t number, std::string_view line);
  void write(File& file);
  void mark(uint64_t number);

  std::string run_;
  File answers_, errors_;
  std::vector<bool> done_;  // by number of line
};

}  // namespace optserve::batches
