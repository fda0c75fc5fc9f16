#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <optional>

#include "base/build_info.h"
#include "base/clock.h"
#include "base/shutdown.h"
#include "base/utc_time.h"
#include "cli/bench/bench_options.h"
#include "cli/bench/bench_recorder.h"
#include "cli/bench/bench_runs.h"
#include "cli/bench/bench_stack.h"
#include "cli/bench/bench_table.h"
#include "cli/bench/machine_info.h"
#include "cli/bench/scratch_folder.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/plot/bench_plot.h"

namespace optserve::cli {
namespace {

void write_file(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  if (!file) throw errno_error("write " + path);
}

// A benchmark takes long, so a file that cannot be written is reported before it starts.
void check_writable(const std::string& path) {
  if (path.empty()) return;
  const std::ofstream file(path, std::ios::binary | std::ios::app);
  if (!file) throw CommandFailure{kExitFailed, errno_error("write " + path).what()};
}

std::vector<PlotSeries> read_published(const std::string& path) {
  return path.empty() ? std::vector<PlotSeries>() : value_or_fail(read_published_series(path));
}

// `optserve bench latency` and `optserve bench throughput`.
class BenchRunner {
 public:
  explicit BenchRunner(workload::BenchKind kind) : options_(kind) {}
  BenchOptions& options() { return options_; }

  int run(const Clock& clock) {
    const BenchPlan plan = value_or_fail(plan_bench(options_));
    check_writable(options_.json_file);
    check_writable(options_.plot_file);
    const std::vector<PlotSeries> published = read_published(options_.published_file);
    BenchResult result = describe(plan, clock);
    const std::optional<std::string> failure = measure(plan, result, clock);
    if (!result.measurements.empty() || !failure) keep(result, published);
    if (failure) std::fprintf(stderr, "optserve: %s\n", failure->c_str());
    if (shutdown_requested()) return kExitInterrupted;
    return failure || !result.complete ? kExitFailed : kExitOk;
  }

 private:
  BenchResult describe(const BenchPlan& plan, const Clock& clock) const {
    BenchResult result;
    result.spec = plan.spec;
    result.through = plan.pipeline ? "pipeline" : "engine";
    result.model = plan.name;
    result.device = options_.connect.empty() ? options_.device : "the stack at " + options_.connect;
    result.world = options_.connect.empty() ? options_.world : 0;
    result.random_weights = options_.random_weights;
    if (options_.random_format != "none") result.random_format = options_.random_format;
    result.version = build_version();
    result.date = rfc3339_text(clock.wall_ms() / 1'000);
    result.command = command_line();
    result.machine = machine_info();
    result.engine["worker_options"] = plan.worker_options;
    return result;
  }

  // Returns why it failed. What was measured before that is kept: a run on many GPUs is too costly to be lost with its
  // last batch.
  std::optional<std::string> measure(const BenchPlan& plan, BenchResult& result, const Clock& clock) const {
    BenchProgress progress(stderr, isatty(STDERR_FILENO) != 0);
    BenchRecorder recorder(result, progress);
    const OnBenchEvent on_event = [&recorder](const nlohmann::json& event) { recorder.on_event(event); };
    try {
      if (plan.pipeline) {
        measure_pipeline(plan, progress, clock, on_event);
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

  void measure_pipeline(const BenchPlan& plan, BenchProgress& progress, const Clock& clock,
                        const OnBenchEvent& on_event) const {
    const ScratchFolder scratch;
    std::optional<BenchStack> stack;
    ConnectionOptions connection_options;
    connection_options.timeout_ms = 60'000;
    connection_options.scheduler = options_.connect;
    if (options_.connect.empty()) {
      progress.print("starting a pipeline with " + plan.name + " ...");
      stack.emplace(stack_arguments(options_, plan, BenchStack::stack_folder(scratch.path())), scratch.path(), clock);
      connection_options.scheduler = stack->endpoint();
    }
    Connection connection = Connection::open(connection_options);
    const workload::ModelBounds bounds{static_cast<int32_t>(plan.config.max_positions),
                                       static_cast<int32_t>(plan.config.vocab_real)};
    PipelineBench bench{connection.client(), clock, plan.name, plan.spec, bounds, false, {}};
    if (stack) {
      bench.runs_every_batch = true;
      bench.device_usage = [&stack] { return stack->device_usage(); };
    }
    run_on_pipeline(bench, on_event);
  }

  void keep(const BenchResult& result, const std::vector<PlotSeries>& published) const {
    std::fputs(bench_table(result).c_str(), stdout);
    std::fflush(stdout);
    if (!options_.json_file.empty()) write_file(options_.json_file, to_json(result).dump(2) + "\n");
    if (options_.plot_file.empty()) return;
    const auto series = series_of(result);
    if (!series.ok()) {
      std::fprintf(stderr, "optserve: no plot: %s\n", series.refusal().message.c_str());
      return;
    }
    write_file(options_.plot_file, render_plot(with_published({series.value()}, published)));
  }

  BenchOptions options_;
};

class BenchCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command("bench", "Measure latency and throughput, and draw them", selected);
    ConfigParser& latency =
        command.add_command("latency", "Time batches of equal requests, by default 4 + 256 tokens", latency_selected_);
    add_options(latency, latency_.options());
    latency.add_example("optserve bench latency --model models/opt-125m --batches 1,8", "two batch sizes");
    latency.add_example("optserve bench latency --model opt-1.3b --random-weights", "without a checkpoint");
    latency.add_example("optserve bench latency --model models/opt-125m --json result.json --plot result.svg",
                        "to files");
    ConfigParser& throughput = command.add_command(
        "throughput", "Time many requests of mixed length that are submitted at once", throughput_selected_);
    add_options(throughput, throughput_.options());
    throughput.add_example("optserve bench throughput --model models/opt-125m", "the engine alone");
    throughput.add_example("optserve bench throughput --model models/opt-125m --through pipeline", "the whole system");
    throughput.add_example("optserve bench throughput --model models/opt-125m --requests 1000 --lengths fixed",
                           "all of the same length");
    ConfigParser& plot = command.add_command("plot", "Draw several results of 'latency' into one plot", plot_selected_);
    plot.add_positional("results", results_,
                        "Files of 'bench latency --json', or files with lines of JSON with other engines' figures",
                        true);
    plot.add("plot", plot_file_, "SVG file to write");
    plot.add("only", only_, "Draw only series whose label contains this text, such as 30b; repeatable");
    plot.add("published", published_file_, kPublishedHelp);
    plot.add_example("optserve bench plot a.json b.json --plot both.svg", "two results in one plot");
    plot.add_example("optserve bench plot a.json --published others.jsonl --plot all.svg", "with published figures");
    plot.add_example("optserve bench plot a.json b.json --only 30b --plot 30b.svg", "one size");
  }

  int run(const Clock& clock) override {
    if (latency_selected_) return latency_.run(clock);
    if (throughput_selected_) return throughput_.run(clock);
    return plot();
  }

 private:
  int plot() const {
    if (plot_file_.empty()) throw CommandFailure{kExitUsage, "plot: expected the SVG file to write"};
    std::vector<PlotSeries> all;
    for (const std::string& path : results_) {
      for (PlotSeries& series : value_or_fail(read_series(path))) all.push_back(std::move(series));
    }
    const auto is_published = [](const PlotSeries& series) { return series.is_published(); };
    const std::vector<PlotSeries> candidates = read_published(published_file_);
    const size_t measured = all.size();
    all = with_published(all, candidates);
    const bool left_out = all.size() < measured + candidates.size();
    std::erase_if(all, [this](const PlotSeries& series) { return !is_wanted(series); });
    if (all.empty()) throw CommandFailure{kExitFailed, "only: no label contains this text"};
    const auto published = static_cast<size_t>(std::count_if(all.begin(), all.end(), is_published));
    write_file(plot_file_, render_plot(all));
    std::fprintf(stderr, "%s: %zu series measured, %zu published\n", plot_file_.c_str(), all.size() - published,
                 published);
    if (left_out) {
      std::fputs("published figures of other prompt and output lengths than the measured ones are left out\n", stderr);
    }
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
  std::string published_file_;
};

}  // namespace

std::unique_ptr<Command> make_bench_command() { return std::make_unique<BenchCommand>(); }

}  // namespace optserve::cli
