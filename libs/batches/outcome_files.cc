#include "batches/outcome_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "base/check.h"
#include "base/error.h"
#include "batches/line.h"
#include "batches/line_reader.h"

namespace optserve::batches {
namespace {

constexpr size_t kWaitingBytesMax = 1 << 20;
// Only the beginning of an answered line is looked at.
constexpr size_t kAnsweredPrefixBytes = 512;

}  // namespace

OutcomeFiles::OutcomeFiles(const std::string& answers, const std::string& errors, std::string run)
    : run_(std::move(run)) {
  open(answers_, answers);
  open(errors_, errors);
}

OutcomeFiles::~OutcomeFiles() {
  for (const File* file : {&answers_, &errors_}) {
    if (file->fd >= 0) close(file->fd);
  }
}

void OutcomeFiles::open(File& file, const std::string& path) {
  file.path = path;
  file.fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (file.fd < 0) throw errno_error("open " + path);
  read_lines(file);
  // A line that was cut off when the process was killed is answered again.
  if (ftruncate(file.fd, static_cast<off_t>(file.bytes)) != 0) throw errno_error("cut " + path);
  if (lseek(file.fd, static_cast<off_t>(file.bytes), SEEK_SET) < 0) throw errno_error("seek in " + path);
}

void OutcomeFiles::read_lines(File& file) {
  LineReader reader(file.path, kAnsweredPrefixBytes);
  while (const std::optional<InputLine> line = reader.next()) {
    if (!line->has_end) break;
    const std::optional<uint64_t> number = answered_number(line->text, run_);
    if (!number || has(*number)) {
      throw Error(file.path + " has a line that is no answer of the run " + run_ + ": line " +
                  std::to_string(line->number));
    }
    mark(*number);
    ++file.lines;
    file.bytes = reader.bytes_read();
  }
}

void OutcomeFiles::mark(uint64_t number) {
  if (number >= done_.size()) done_.resize(number + number / 2 + 64);
  done_[number] = true;
}

void OutcomeFiles::add(File& file, uint64_t number, std::string_view line) {
  check(!has(number), "a line is answered once");
  check(line.ends_with('\n'), "an answer is a whole line");
  mark(number);
  ++file.lines;
  file.waiting += line;
  if (file.waiting.size() > kWaitingBytesMax) write(file);
}

void OutcomeFiles::write(File& file) {
  std::string_view rest = file.waiting;
  while (!rest.empty()) {
    const ssize_t written = ::write(file.fd, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw errno_error("write " + file.path);
    rest.remove_prefix(static_cast<size_t>(written));
  }
  file.bytes += file.waiting.size();
  file.waiting.clear();
}

void OutcomeFiles::flush() {
  for (File* file : {&answers_, &errors_}) {
    if (file->waiting.empty()) continue;
    write(*file);
    if (fdatasync(file->fd) != 0) throw errno_error("flush " + file->path);
  }
}

}  // namespace optserve::batches
