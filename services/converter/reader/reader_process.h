// The process that opens and parses foreign files for the converter: started, asked, and ended with its owner.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "converter/reader/cage.h"
#include "converter/reader/reader_protocol.h"

namespace optserve::converter {

// How foreign files are read.
struct ReaderSettings {
  SandboxMode sandbox = SandboxMode::kTry;
  int64_t answer_seconds = 600;  // a reader that is silent for longer is ended
  std::string program{};         // empty: optserve-checkpoint-reader beside this program
};

class ReaderProcess {
 public:
  // Starts the program with `arguments`. It gets the channel, the window, standard error and nothing else of this
  // process: no other descriptor, no variable of the environment but those of sanitizers. Throws Error.
  ReaderProcess(const ReaderSettings& settings, std::vector<std::string> arguments);
  ~ReaderProcess();  // ends it
  ReaderProcess(const ReaderProcess&) = delete;
  ReaderProcess& operator=(const ReaderProcess&) = delete;

  // Asks one question. Refused for the reader's own reason, or because the reader crashed over the files or gave an
  // invalid answer; then it is ended. Throws Error when the environment failed: because the reader says so, was silent
  // for too long, or was killed from outside.
  Result<Reply> ask(const Request& request) {
    post(request);
    return collect();
  }
  // The two halves of ask(): other work can be done between them. Each question is collected before the next one.
  void post(const Request& request);
  Result<Reply> collect();

  // What the last answer put into the window. A reader that was taken over may change the bytes at any time: copy them
  // before looking at them.
  std::span<const std::byte> window() const { return {window_, kWindowBytes}; }

  pid_t pid() const { return pid_; }  // for tests

 private:
  void open_channels();
  void start(const std::string& program, std::vector<std::string> arguments);
  void close_all();
  Result<Reply> checked(const Reply& reply);
  Refusal ended_over_files(const std::string& what);
  Refusal dead();
  std::string last_words() const;
  void end();

  const int64_t answer_seconds_;
  pid_t pid_ = -1;
  int status_ = 0;
  int channel_ = -1, channel_of_reader_ = -1;
  int errors_ = -1, errors_of_reader_ = -1;
  int window_fd_ = -1;
  const std::byte* window_ = nullptr;
};

}  // namespace optserve::converter
