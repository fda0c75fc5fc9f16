#include "batches/line_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace optserve::batches {

LineReader::LineReader(std::string path, size_t line_bytes_max)
    : path_(std::move(path)), line_bytes_max_(line_bytes_max), fd_(open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (fd_ < 0) throw errno_error("open " + path_);
  struct stat facts {};
  if (fstat(fd_, &facts) == 0 && S_ISREG(facts.st_mode)) bytes_total_ = static_cast<uint64_t>(facts.st_size);
  buffer_.resize(size_t{256} << 10);
}

LineReader::~LineReader() { close(fd_); }

bool LineReader::fill() {
  begin_ = end_ = 0;
  while (true) {
    const ssize_t got = read(fd_, buffer_.data(), buffer_.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw errno_error("read " + path_);
    end_ = static_cast<size_t>(got);
    return got > 0;
  }
}

std::optional<InputLine> LineReader::next() {
  InputLine line;
  bool has_begun = false;
  while (begin_ < end_ || fill()) {
    const std::string_view ready(buffer_.data() + begin_, end_ - begin_);
    const size_t feed = ready.find('\n');
    const bool is_whole = feed != std::string_view::npos;
    const std::string_view piece = ready.substr(0, feed);
    has_begun = true;
    const size_t room = line_bytes_max_ - std::min(line_bytes_max_, line.text.size());
    line.text.append(piece.substr(0, room));
    line.is_too_long = line.is_too_long || piece.size() > room;
    const size_t taken = piece.size() + (is_whole ? 1 : 0);
    begin_ += taken;
    bytes_read_ += taken;
    if (!is_whole) continue;
    ++number_;
    has_begun = false;
    if (line.text.ends_with('\r')) line.text.pop_back();
    line.has_end = !line.text.empty();
    if (line.has_end) break;
  }
  if (has_begun) ++number_;
  if (line.text.empty()) return std::nullopt;
  line.number = number_;
  return line;
}

}  // namespace optserve::batches
