#include "converter/commands/command_line.h"

namespace optserve::converter {
namespace {

void add_serve(ConfigParser& parser, CommandLine& line) {
  ServeOptions& serve = line.serve;
  ConfigParser& command =
      parser.add_command("serve", "Take conversion jobs from schedulers until SIGTERM", line.is_serve);
  command.use_environment();
  command
      .add("scheduler", serve.schedulers,
           "Service endpoint of a scheduler; repeatable: the service registers with all of them")
      .separated_by_commas();
  command.add("root", serve.roots, "Folder that jobs may read and write; repeatable; without one every job is refused")
      .separated_by_commas();
  command.add(
      "name", serve.name,
      "Name of this process in 'optserve status' and for 'optserve queue --service'; empty: host and process id");
  command.add("drain-seconds", serve.drain_seconds, "How long a running conversion may go on after SIGTERM");
  conversion::add_pass_option(command, serve.pass_mib_max);
  conversion::add_options(command, serve.reader);
  keys::add_options(command, serve.keys);
  add_common_options(command, serve.common);
  line.serve_parser = &command;
}

}  // namespace

void add_options(ConfigParser& parser, CommandLine& line) {
  add_serve(parser, line);
  conversion::add_command(parser, line.convert, line.is_convert);
  conversion::add_command(parser, line.exported, line.is_export);
  conversion::add_command(parser, line.inspect, line.is_inspect);
  conversion::add_command(parser, line.calibrate, line.is_calibrate);
}

}  // namespace optserve::converter
