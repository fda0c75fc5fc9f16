#include "converter/service/serve.h"

#include "base/address_check.h"
#include "base/log.h"
#include "base/program.h"
#include "confinement/program_cage.h"
#include "converter/commands/convert_command.h"
#include "converter/commands/reader_settings.h"
#include "converter/service/conversion_thread.h"
#include "converter/service/converter_service.h"
#include "converter/service/path_guard.h"
#include "converter/verify/verify.h"
#include "http/health_server.h"
#include "transport/scheduler_session.h"

namespace optserve::converter {
namespace {

// Refused if the output is not what the source says. The job's progress stays where the conversion left it.
Status verify_job(ConvertOptions options, const ConversionThread::Progress& progress, ConvertProgress last) {
  options.on_progress = [&](const ConvertProgress&) {
    return progress(static_cast<int64_t>(last.bytes_done), static_cast<int64_t>(last.bytes_total));
  };
  const Result<VerifyReport> report = verify(options);
  if (!report.ok()) return report.refusal();
  const std::vector<std::string> faults = report.value().faults();
  for (const std::string& fault : faults) log_error("verification_failed", {{"fault", fault}});
  if (faults.empty()) return ok_status();
  return refuse(ErrorCode::kDataCorrupt, options.output + " is not what its source says; do not use it: " +
                                             std::to_string(faults.size()) + " faults, the first in " + faults.front());
}

// The one place where the fields of a job become the options of a conversion.
conversion::ConvertCommand command_of(const protocol::ConvertSpec& spec, const ServeOptions& settings) {
  conversion::ConvertCommand command;
  command.input = spec.source;
  command.output = spec.destination;
  command.shards = spec.shards;
  command.pass_mib_max = settings.pass_mib_max;
  if (!spec.dtype.empty()) command.dtype = spec.dtype;
  if (!spec.quantize.empty()) command.quantize = spec.quantize;
  command.reader = settings.reader;
  command.verify = spec.verify;
  return command;
}

// What the conversion thread does with one job.
Result<std::string> convert_job(const conversion::ConvertCommand& command, const Clock& clock,
                                const ConversionThread::Progress& progress) {
  Result<ConvertOptions> options = options_of(command);
  if (!options.ok()) return options.refusal();
  ConvertProgress last;
  options.value().on_progress = [&](const ConvertProgress& at) {
    last = at;
    return progress(static_cast<int64_t>(at.bytes_done), static_cast<int64_t>(at.bytes_total));
  };
  const Result<ConvertResult> result = convert(options.value(), clock);
  if (!result.ok()) return result.refusal();
  for (const std::string& warning : result.value().warnings) log_warn("conversion_warning", {{"warning", warning}});
  const std::string summary = summary_text(options.value().output, result.value());
  if (!command.verify) return summary;
  if (Status status = verify_job(options.value(), progress, last); !status.ok()) return status.refusal();
  return summary + ", verified";
}

// Reports faults at the start that would otherwise show with the first job only.
void check_sandbox(const conversion::ReaderOptions& options) {
  const Result<ReaderSettings> reader = settings_of(options);
  if (!reader.ok()) throw ConfigurationError(reader.refusal().message);
  if (reader.value().sandbox == SandboxMode::kOff) {
    log_warn("sandbox_off", {{"meaning", "foreign files are parsed without a cage; see --sandbox"}});
    return;
  }
  const std::string missing = try_cage();
  if (missing.empty()) return;
  if (reader.value().sandbox == SandboxMode::kRequire) {
    throw Error("the sandbox is required, but this system cannot provide it: " + missing);
  }
  log_warn("sandbox_incomplete", {{"missing", missing}});
}

}  // namespace

void serve(const ServeOptions& options, const Clock& clock) {
  const auto keys = transport::load_keys(options.keys, options.schedulers);
  for (const std::string& scheduler : options.schedulers) {
    const Status status = check_address("scheduler", scheduler, AddressUse::kConnect);
    if (!status.ok()) throw ConfigurationError(status.refusal().message);
  }
  const PathGuard guard(options.roots);
  check_sandbox(options.reader);
  confinement::enter(confinement::kConverter, options.reader.sandbox);
  if (options.roots.empty()) log_warn("no_root", {{"meaning", "every job is refused; give --root"}});
  metrics::Registry metrics({}, metrics::other_names(options.common.metrics_compat));
  metrics::Health health(clock);
  health.stamp();
  const http::HealthServer http(options.common.http_address, options.common.http_port, metrics, health);
  log_info("listening", {{"http", options.common.http_address + ":" + std::to_string(http.port())}});

  const auto run_job = [&](const protocol::ConvertSpec& spec, const auto& progress) -> Result<std::string> {
    const Result<protocol::ConvertSpec> resolved = guard.resolve(spec);
    if (!resolved.ok()) return resolved.refusal();
    return convert_job(command_of(resolved.value(), options), clock, progress);
  };
  ConversionThread thread(run_job);
  protocol::Register hello = transport::new_registration(options.name);
  const transport::SchedulerLinkOptions link = transport::link_options(hello, options.schedulers);
  ConverterService service(thread, std::move(hello), link, metrics, health);
  transport::serve_scheduler(
      service, {options.schedulers, seconds(options.drain_seconds), {}, keys, options.keys.insecure}, metrics, health);
}

}  // namespace optserve::converter
