#include "cli/batch/batch_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/ids.h"
#include "base/rename_file.h"
#include "cli/commands/command.h"

namespace optserve::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// What tells an input from another one, and from itself after a change.
std::string identity_of(const std::string& path) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) throw CommandFailure{kExitFailed, errno_error("open " + path).what()};
  if (!S_ISREG(facts.st_mode)) {
    throw CommandFailure{kExitUsage, path + " is not a file: a batch that goes on after a kill reads its input again"};
  }
  return std::to_string(facts.st_size) + " bytes, changed at " +
         std::to_string(facts.st_mtim.tv_sec * 1'000'000'000LL + facts.st_mtim.tv_nsec);
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

BatchFiles::BatchFiles(BatchPaths paths, bool restart) : paths_(std::move(paths)) {
  const std::string input = identity_of(paths_.input);
  if (!restart && fs::exists(paths_.answers) && !fs::exists(paths_.run_note())) {
    throw CommandFailure{kExitFailed, paths_.answers + " exists; give --restart to answer everything again"};
  }
  lock();
  const std::string note = text_of(paths_.run_note());
  if (restart || note.empty()) {
    begin(input);
  } else {
    resume(note, input);
  }
}

void BatchFiles::lock() {
  lock_ = FileLock::try_exclusive(paths_.run_note());
  if (!lock_) throw CommandFailure{kExitFailed, "another process is writing " + paths_.answers};
}

void BatchFiles::begin(const std::string& input) {
  run_ = "run-" + Id128::random().hex();
  // In this order: a run whose note exists without its files has not answered anything yet.
  for (const std::string& path : {paths_.answers_part(), paths_.errors_part()}) fs::remove(path);
  lock_->write_note(json{{"run", run_}, {"input", input}}.dump() + "\n");
}

void BatchFiles::resume(const std::string& note, const std::string& input) {
  const json parsed = json::parse(note, nullptr, false);
  if (!parsed.is_object() || !parsed.contains("run") || !parsed.at("run").is_string()) {
    throw CommandFailure{kExitFailed, paths_.run_note() + " is damaged; give --restart to answer everything again"};
  }
  if (parsed.value("input", "") != input) {
    throw CommandFailure{kExitFailed, paths_.input + " has changed since " + paths_.answers_part() +
                                          " was begun; give --restart to answer everything again"};
  }
  run_ = parsed.at("run").get<std::string>();
  is_resumed_ = true;
}

void BatchFiles::finish(bool has_errors) {
  rename_file(paths_.answers_part(), paths_.answers);
  if (has_errors) {
    rename_file(paths_.errors_part(), paths_.errors);
  } else {
    fs::remove(paths_.errors_part());
    fs::remove(paths_.errors);  // of an earlier run
  }
  fs::remove(paths_.run_note());
}

}  // namespace optserve::cli
