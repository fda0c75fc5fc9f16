#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <optional>

#include "base/build_info.h"
#include "base/clock.h"
#include "cli/bench_engine.h"
#include "cli/bench_options.h"
#include "cli/bench_pipeline.h"
#include "cli/bench_plot.h"
#include "cli/bench_recorder.h"
#include "cli/bench_table.h"
#include "cli/command.h"
#include "cli/connection.h"
#include "cli/exit_status.h"
#include "cli/machine_info.h"
#include "cli/scratch_folder.h"

namespace optserve::cli {
namespace {

void write_file(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  if (!file) throw errno_error("write " + path);
}

// Benchmarks take long: a file that cannot be written is better known before.
void check_writable(const std::string& path) {
  if (path.empty()) return;
  const std::ofstream file(path, std::ios::binary | std::ios::app);
  if (!file) throw CommandFailure{kExitRefused, errno_error("write " + path).what()};
}

// `optserve bench latency` and `optserve bench throughput`.
class BenchRunner {
 public:
  explicit BenchRunner(workload::BenchKind kind) : options_(kind) {}
  BenchOptions& options() { return options_; }

  int run() {
    const BenchPlan plan = value_or_fail(plan_bench(options_));
    check_writable(options_.json_file);
    check_writable(options_.plot_file);
    BenchResult result = describe(plan);
    const std::optional<std::string> failure = measure(plan, result);
    if (!result.measurements.empty() || !failure) keep(result);
    if (!failure) return result.complete ? kExitOk : kExitRefused;
    std::fprintf(stderr, "optserve bench: %s\n", failure->c_str());
    return kExitRefused;
  }

 private:
  BenchResult describe(const BenchPlan& plan) const {
    BenchResult result;
    result.spec = plan.spec;
    result.through = plan.pipeline ? "pipeline" : "engine";
    result.model = plan.name;
    result.device = options_.connect.empty() ? options_.device : "the stack at " + options_.connect;
    result.world = options_.connect.empty() ? options_.world : 0;
    result.random_weights = options_.random_weights;
    result.random_format = options_.random_format;
    result.version = build_version();
    result.date = iso_date(clock_.wall_ms());
    result.command = command_line();
    result.machine = machine_info();
    result.engine["worker_options"] = plan.worker_options;
    return result;
  }

  // What was measured is kept even if the rest fails: a run on many GPUs is worth more than its last batch.
  std::optional<std::string> measure(const BenchPlan& plan, BenchResult& result) const {
    BenchProgress progress(stderr, isatty(STDERR_FILENO) != 0);
    BenchRecorder recorder(result, progress);
    const OnBenchEvent on_event = [&recorder](const nlohmann::json& event) { recorder.on_event(event); };
    try {
      if (plan.pipeline) {
        measure_pipeline(plan, progress, on_event);
      } else {
        progress.print("starting optserve-worker with " + plan.name + " ...");
        run_on_engine(worker_arguments(options_, plan), on_event);
      }
      return std::nullopt;
    } catch (const CommandFailure& failure) {
      return failure.message;
    } catch (const std::exception& error) {
      return error.what();
    }
  }

  void measure_pipeline(const BenchPlan& plan, BenchProgress& progress, const OnBenchEvent& on_event) const {
    const ScratchFolder scratch;
    std::optional<BenchStack> stack;
    ConnectionOptions connection_options;
    connection_options.timeout_ms = 60'000;
    connection_options.scheduler = options_.connect;
    if (options_.connect.empty()) {
      progress.print("starting a pipeline with " + plan.name + " ...");
      stack.emplace(stack_arguments(options_, plan, BenchStack::stack_folder(scratch.path())), scratch.path());
      connection_options.scheduler = stack->endpoint();
    }
    Connection connection = Connection::open(connection_options);
    const workload::ModelBounds bounds{static_cast<int32_t>(plan.config.max_positions),
                                       static_cast<int32_t>(plan.config.vocab_real)};
    PipelineBench bench{connection.client(), clock_, plan.name, plan.spec, bounds, false, {}};
    if (stack) {
      bench.runs_every_batch = true;
      bench.device_usage = [&stack] { return stack->device_usage(); };
    }
    run_on_pipeline(bench, on_event);
  }

  void keep(const BenchResult& result) const {
    std::fputs(bench_table(result).c_str(), stdout);
    std::fflush(stdout);
    if (!options_.json_file.empty()) write_file(options_.json_file, to_json(result).dump(2) + "\n");
    if (options_.plot_file.empty()) return;
    const auto series = series_of(result);
    if (!series.ok()) {
      std::fprintf(stderr, "optserve bench: no plot: %s\n", series.refusal().message.c_str());
      return;
    }
    write_file(options_.plot_file, render_plot(with_published({series.value()})));
  }

  SystemClock clock_;
  BenchOptions options_;
};

class BenchCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command("bench", "Measure latency and throughput, and draw them", selected);
    add_options(command.add_command("latency", "Time whole batches of equal requests, by default 4 + 256 tokens",
                                    latency_selected_),
                latency_.options());
    add_options(command.add_command("throughput", "Time many requests of mixed length, handed in at once",
                                    throughput_selected_),
                throughput_.options());
    ConfigParser& plot =
        command.add_command("plot", "Draw several results of 'latency' into one picture", plot_selected_);
    plot.add_positional("results", results_, "Files of --json, or lines of JSON with other engines' figures", true);
    plot.add("plot", plot_file_, "SVG file to write");
    plot.add("only", only_, "Draw only series whose label has this text, repeatable: 30b");
    plot.add("published", published_, "Draw FasterTransformer's published figures too");
  }

  int run() override {
    if (latency_selected_) return latency_.run();
    if (throughput_selected_) return throughput_.run();
    return plot();
  }

 private:
  int plot() const {
    if (plot_file_.empty()) throw CommandFailure{kExitUsage, "plot: expected the SVG file to write"};
    std::vector<PlotSeries> all;
    for (const std::string& path : results_) {
      for (PlotSeries& series : value_or_fail(read_series(path))) all.push_back(std::move(series));
    }
    const auto is_published = [](const PlotSeries& series) { return series.is_published; };
    if (published_) all = with_published(std::move(all));
    const bool left_out = published_ && std::none_of(all.begin(), all.end(), is_published);
    std::erase_if(all, [this](const PlotSeries& series) { return !is_wanted(series); });
    if (all.empty()) throw CommandFailure{kExitRefused, "only: no series has such a label"};
    const auto published = static_cast<size_t>(std::count_if(all.begin(), all.end(), is_published));
    write_file(plot_file_, render_plot(all));
    std::fprintf(stderr, "%s: %zu series measured, %zu published\n", plot_file_.c_str(), all.size() - published,
                 published);
    if (left_out)
      std::fputs("published figures are of prompts of 4 tokens and 256 new ones, so they are left out\n", stderr);
    return kExitOk;
  }

  bool is_wanted(const PlotSeries& series) const {
    return only_.empty() || std::any_of(only_.begin(), only_.end(), [&series](const std::string& text) {
             return series.label.find(text) != std::string::npos;
           });
  }

  BenchRunner latency_{workload::BenchKind::kLatency};
  BenchRunner throughput_{workload::BenchKind::kThroughput};
  bool latency_selected_ = false;
  bool throughput_selected_ = false;
  bool plot_selected_ = false;
  std::vector<std::string> results_;
  std::string plot_file_;
  std::vector<std::string> only_;
  bool published_ = true;
};

}  // namespace

std::unique_ptr<Command> make_bench_command() { return std::make_unique<BenchCommand>(); }

}  // namespace optserve::cli
