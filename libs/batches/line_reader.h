// Reads a file line by line, in bounded memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace optserve::batches {

struct InputLine {
  uint64_t number = 0;       // counted from 1, empty lines too
  std::string text;          // without the line feed, and without a carriage return before it
  bool has_end = false;      // ends with a line feed; only the last line may lack it
  bool is_too_long = false;  // it has more bytes than allowed, and `text` is its beginning
};

class LineReader {
 public:
  // Throws Error if the file cannot be opened or is a folder.
  LineReader(std::string path, size_t line_bytes_max);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next line that is not empty; nullopt at the end. The last line needs no line feed. Throws Error if the file
  // cannot be read.
  std::optional<InputLine> next();
  // The bytes of the lines that were read, and of the whole file when it was opened, which are 0 for a pipe.
  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t bytes_total() const { return bytes_total_; }

 private:
  bool fill();  // false: the end of the file

  std::string path_;
  size_t line_bytes_max_;
  int fd_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;  // of what is in the buffer and has not been taken
  uint64_t number_ = 0, bytes_read_ = 0, bytes_total_ = 0;
};

}  // namespace optserve::batches
