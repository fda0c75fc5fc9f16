// The only includer of libedit.
#include <fcntl.h>
#include <histedit.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cwchar>
#include <filesystem>

#include "base/error.h"
#include "base/shutdown.h"
#include "cli/prompt/input_lines.h"

namespace optserve::cli {
namespace {

constexpr int kHistoryLinesMax = 1'000;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using OpenFile = std::unique_ptr<std::FILE, CloseFile>;

// The lines of earlier runs and of this one.
class LineHistory {
 public:
  explicit LineHistory(std::string path) : path_(std::move(path)), history_(history_init()) {
    check(history_ != nullptr, "history_init() has no memory");
    HistEvent event{};
    history(history_, &event, H_SETSIZE, kHistoryLinesMax);
    history(history_, &event, H_SETUNIQUE, 1);
    if (path_.empty()) return;
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), error);
    if (!std::filesystem::exists(path_, error)) return;
    if (history(history_, &event, H_LOAD, path_.c_str()) < 0) give_up("is not a history of lines");
  }
  ~LineHistory() { history_end(history_); }
  LineHistory(const LineHistory&) = delete;
  LineHistory& operator=(const LineHistory&) = delete;

  History* get() const { return history_; }

  // On disk at once, so that no kill loses it; the file is replaced as a whole.
  void add(const char* line) {
    HistEvent event{};
    history(history_, &event, H_ENTER, line);
    if (path_.empty()) return;
    const std::string written = path_ + "." + std::to_string(getpid());
    const int descriptor = open(written.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (descriptor < 0) return give_up(errno_error("cannot be written").what());
    OpenFile file(fdopen(descriptor, "w"));
    const bool is_written = file && history(history_, &event, H_SAVE_FP, file.get()) >= 0 &&
                            std::fflush(file.get()) == 0 && std::rename(written.c_str(), path_.c_str()) == 0;
    if (is_written) return;
    unlink(written.c_str());
    give_up("cannot be written");
  }

 private:
  void give_up(const std::string& why) {
    std::fprintf(stderr, "optserve: %s %s; the history of this run is not kept\n", path_.c_str(), why.c_str());
    path_.clear();
  }

  std::string path_;
  History* history_;
};

class TerminalLines final : public InputLines {
 public:
  explicit TerminalLines(const std::string& history_file) : history_(history_file) {
    std::setlocale(LC_CTYPE, "C.UTF-8");  // prompts are UTF-8 wherever the program runs
    // If the output goes to a file, the line is edited on standard error.
    editor_ = el_init("optserve", stdin, isatty(STDOUT_FILENO) != 0 ? stdout : stderr, stderr);
    if (editor_ == nullptr) throw Error("the terminal cannot be used for editing lines");
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_PROMPT, &TerminalLines::prompt_of);
    el_set(editor_, EL_HIST, history, history_.get());
    el_set(editor_, EL_GETCFN, &TerminalLines::read_character);
    el_source(editor_, nullptr);  // ~/.editrc
  }
  ~TerminalLines() override { el_end(editor_); }
  TerminalLines(const TerminalLines&) = delete;
  TerminalLines& operator=(const TerminalLines&) = delete;

  LineOutcome read(std::string& line, bool is_continuation) override {
    is_continuation_ = is_continuation;
    el_resize(editor_);
    el_set(editor_, EL_PREP_TERM, 1);  // before the prompt appears, so that what is typed meanwhile can be edited
    int count = 0;
    const char* typed = el_gets(editor_, &count);
    if (shutdown_requested() || typed == nullptr || count <= 0) {
      std::fputs("\n", isatty(STDOUT_FILENO) != 0 ? stdout : stderr);
      el_reset(editor_);
      return shutdown_requested() ? LineOutcome::kInterrupted : LineOutcome::kEnd;
    }
    line.assign(typed, static_cast<size_t>(count));
    if (line.ends_with('\n')) line.pop_back();
    if (line.find_first_not_of(" \t") != std::string::npos) history_.add(line.c_str());
    return LineOutcome::kLine;
  }

 private:
  static TerminalLines& of(EditLine* editor) {
    void* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return *static_cast<TerminalLines*>(self);
  }
  static char* prompt_of(EditLine* editor) {
    static char first[] = ">>> ", more[] = "... ";
    return of(editor).is_continuation_ ? more : first;
  }
  // Unlike libedit's own function, it ends when a signal comes. Returns 1, or 0 at the end, or -1.
  static int read_character(EditLine*, wchar_t* character) {
    std::mbstate_t state{};
    while (true) {
      std::array<pollfd, 2> waits{pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{shutdown_fd(), POLLIN, 0}};
      if (poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) return -1;
      if (shutdown_requested()) return -1;
      if (waits[0].revents == 0) continue;
      char byte = 0;
      const ssize_t count = ::read(STDIN_FILENO, &byte, 1);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return static_cast<int>(count);
      const size_t used = std::mbrtowc(character, &byte, 1, &state);
      if (used == static_cast<size_t>(-2)) continue;  // more bytes belong to it
      if (used != static_cast<size_t>(-1)) return 1;
      state = {};  // not UTF-8: left out
    }
  }

  LineHistory history_;
  EditLine* editor_ = nullptr;
  bool is_continuation_ = false;
};

}  // namespace

std::unique_ptr<InputLines> lines_of_terminal(const std::string& history_file) {
  return std::make_unique<TerminalLines>(history_file);
}

}  // namespace optserve::cli
