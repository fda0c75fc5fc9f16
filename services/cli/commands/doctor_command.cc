#include <unistd.h>

#include <cstdio>

#include "cli/commands/command.h"
#include "cli/doctor/diagnosis.h"

namespace optserve::cli {
namespace {

class DoctorCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command =
        parser.add_command("doctor", "Show what this machine has and lacks for optserve, and what to do", selected);
    command.add("dir", folder_, "Folder on the disk that the journal will use");
    command.add("json", json_, "Print a JSON object");
    command.add_example("optserve doctor", "before the first start; exit status 1 if something prevents it");
    command.add_example("optserve doctor --dir /var/lib/optserve", "how fast the disk of this folder is");
    command.add_example("optserve doctor --json > machine.json", "for a program, or for a report of a fault");
  }

  int run(const Clock& clock) override {
    const std::vector<Finding> findings = diagnose(look_at_machine(folder_, clock));
    const bool in_colours = isatty(STDOUT_FILENO) != 0 && environment_variable("NO_COLOR").empty();
    std::fputs((json_ ? findings_json(findings) : findings_text(findings, in_colours)).c_str(), stdout);
    return worst_health(findings) == Health::kProblem ? kExitFailed : kExitOk;
  }

 private:
  std::string folder_ = ".";
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_doctor_command() { return std::make_unique<DoctorCommand>(); }

}  // namespace optserve::cli
