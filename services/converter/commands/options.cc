#include "converter/commands/options.h"

namespace optserve::converter {
namespace {

void add_serve(ConfigParser& parser, ConverterOptions& options) {
  ConfigParser& command =
      parser.add_command("serve", "Take conversion jobs from the scheduler until SIGTERM", options.is_serve);
  add_common_options(command, options.serve.common);
  command.add("scheduler", options.serve.schedulers,
              "Service endpoint of a scheduler; repeatable: the service registers with all of them");
  command.add("root", options.serve.roots,
              "Folder that jobs may read and write, repeatable; without one every job is refused");
  command.add("drain-seconds", options.serve.drain_seconds, "How long a running conversion may go on after SIGTERM");
  conversion::add_pass_option(command, options.serve.pass_mib_max);
  conversion::add_options(command, options.serve.reader);
  options.serve_parser = &command;
}

}  // namespace

void add_options(ConfigParser& parser, ConverterOptions& options) {
  add_serve(parser, options);
  conversion::add_command(parser, options.convert, options.is_convert);
  conversion::add_command(parser, options.exported, options.is_export);
  conversion::add_command(parser, options.inspect, options.is_inspect);
  conversion::add_command(parser, options.calibrate, options.is_calibrate);
}

}  // namespace optserve::converter
