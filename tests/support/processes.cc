#include "support/processes.h"

#include <sys/wait.h>

#include <fstream>
#include <sstream>

#include "cli/stack/child_process.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace {

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

}  // namespace

ProgramOutput run_program(const std::string& name, const std::vector<std::string>& arguments,
                          const std::string& input) {
  const TemporaryFolder folder;
  const std::string in = folder / "in", out = folder / "out", err = folder / "err";
  const std::string redirect = "exec \"$0\" \"$@\" <'" + in + "' >'" + out + "' 2>'" + err + "'";
  std::ofstream(in, std::ios::binary) << input;
  std::vector<std::string> shell{"-c", redirect, cli::sibling_program(name)};
  shell.insert(shell.end(), arguments.begin(), arguments.end());
  const int status = cli::ChildProcess::start({"/bin/sh", shell, {}}).wait();
  return {WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), read_file(out), read_file(err)};
}

}  // namespace optserve::test_support
