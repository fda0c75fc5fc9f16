#include "converter/service/serve.h"

#include "base/log.h"
#include "converter/service/conversion_thread.h"
#include "converter/service/converter_service.h"
#include "converter/service/path_guard.h"
#include "converter/verify/verify.h"
#include "metrics/http_server.h"
#include "transport/scheduler_session.h"

namespace optserve::converter {
namespace {

std::string summary_of(const std::string& destination, const ConvertResult& result) {
  return destination + ": " + result.config.name + ", " + std::to_string(result.parameters) + " parameters in " +
         formats_text(result) + ", " + std::to_string(result.shards) + " shards, " +
         (result.existed ? "written before" : std::to_string(result.bytes_written) + " bytes") + ", from " +
         result.layout;
}

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
  return refuse(ErrorCode::kDataCorrupt, options.output + " is not what its source says, do not use it; " +
                                             std::to_string(faults.size()) + " faults, the first in " + faults.front());
}

// What the conversion thread does with one job.
Result<std::string> convert_job(const PathGuard& guard, const ServeOptions& settings,
                                const protocol::ConvertSpec& wanted, const ConversionThread::Progress& progress) {
  const Result<protocol::ConvertSpec> spec = guard.resolve(wanted);
  if (!spec.ok()) return spec.refusal();
  ConvertCommand command;
  command.input = spec.value().source;
  command.output = spec.value().destination;
  command.dtype = spec.value().dtype.empty() ? "keep" : spec.value().dtype;
  command.quantize = spec.value().quantize.empty() ? "none" : spec.value().quantize;
  command.shards = spec.value().shards;
  command.pass_mib_max = settings.pass_mib_max;
  command.reader = settings.reader;
  Result<ConvertOptions> options = to_options(command);
  if (!options.ok()) return options.refusal();
  ConvertProgress last;
  options.value().on_progress = [&](const ConvertProgress& at) {
    last = at;
    return progress(static_cast<int64_t>(at.bytes_done), static_cast<int64_t>(at.bytes_total));
  };
  const Result<ConvertResult> result = convert(options.value());
  if (!result.ok()) return result.refusal();
  for (const std::string& warning : result.value().warnings) log_warn("conversion_warning", {{"warning", warning}});
  if (!spec.value().verify) return summary_of(command.output, result.value());
  if (Status status = verify_job(options.value(), progress, last); !status.ok()) return status.refusal();
  return summary_of(command.output, result.value()) + ", verified";
}

// Says at the start what else the first job would say.
void check_sandbox(const ReaderOptions& options) {
  const Result<ReaderSettings> reader = to_settings(options);
  if (!reader.ok()) throw Error(reader.refusal().message);
  if (reader.value().sandbox == SandboxMode::kOff) {
    log_warn("sandbox_off", {{"meaning", "foreign files are parsed without a cage; see --sandbox"}});
    return;
  }
  const std::string missing = try_cage();
  if (missing.empty()) return;
  if (reader.value().sandbox == SandboxMode::kRequire)
    throw Error("the sandbox is required and cannot be had on this system: " + missing);
  log_warn("sandbox_incomplete", {{"missing", missing}});
}

}  // namespace

void serve(const ServeOptions& options) {
  const PathGuard guard(options.roots);
  check_sandbox(options.reader);
  if (options.roots.empty()) log_warn("no_root", {{"meaning", "every job is refused; give --root"}});
  Registry metrics;
  Health health;
  health.stamp();
  const HttpServer http(options.common.http_address, options.common.http_port, metrics, health);
  log_info("listening", {{"http", options.common.http_address + ":" + std::to_string(http.port())}});

  ConversionThread thread([&](const protocol::ConvertSpec& spec, const auto& progress) {
    return convert_job(guard, options, spec, progress);
  });
  protocol::Register hello = transport::new_registration();
  const transport::SchedulerLinkOptions link = transport::link_options(hello, options.schedulers);
  ConverterService service(thread, std::move(hello), link, metrics, health);
  transport::serve_scheduler(service, {options.schedulers, seconds(options.drain_seconds), {}}, metrics, health);
}

}  // namespace optserve::converter
