// Speed on the held-out stories of the demo model. MB are 10^6 bytes.
#include <benchmark/benchmark.h>

#include <fstream>
#include <iterator>

#include "tokenizer/encoder.h"
#include "tokenizer/text_streamer.h"

namespace optserve::tokenizer {
namespace {

Bpe load(benchmark::State& state, const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / "gpt2-vocab.json")) {
    state.SkipWithError("no vocabulary");
    return Bpe::load(std::string(OPTSERVE_DEMO_MODEL) + "/gpt2-vocab.json",
                     std::string(OPTSERVE_DEMO_MODEL) + "/gpt2-merges.txt")
        .value();
  }
  return Bpe::load(folder / "gpt2-vocab.json", folder / "gpt2-merges.txt").value();
}

std::string stories() {
  std::ifstream in(std::string(OPTSERVE_DEMO_MODEL) + "/heldout.txt", std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void count_bytes(benchmark::State& state, size_t bytes) {
  state.counters["MB/s"] =
      benchmark::Counter(static_cast<double>(bytes) / 1e6, benchmark::Counter::kIsIterationInvariantRate);
}

void encode_stories(benchmark::State& state, const std::string& folder, bool warm) {
  const Bpe bpe = load(state, folder);
  const std::string text = stories();
  std::vector<TokenId> ids;
  Encoder kept(bpe);
  for (auto _ : state) {
    ids.clear();
    if (warm) {
      (void)kept.encode(text, ids).ok();
    } else {
      Encoder fresh(bpe);
      (void)fresh.encode(text, ids).ok();
    }
    benchmark::DoNotOptimize(ids.data());
  }
  count_bytes(state, text.size());
}

// 64 KiB of one character: the worst case of the largest prompt.
void encode_run(benchmark::State& state, const std::string& unit) {
  const Bpe bpe = load(state, OPTSERVE_DEMO_MODEL);
  std::string text;
  while (text.size() < limits::kPromptBytesMax) text += unit;
  Encoder encoder(bpe);
  std::vector<TokenId> ids;
  for (auto _ : state) {
    ids.clear();
    (void)encoder.encode(text, ids).ok();
    benchmark::DoNotOptimize(ids.data());
  }
  count_bytes(state, text.size());
}

// One call per token, as in a stream, with two stop strings.
void stream_tokens(benchmark::State& state) {
  const Bpe bpe = load(state, OPTSERVE_DEMO_MODEL);
  const std::string text = stories();
  std::vector<TokenId> ids;
  Encoder encoder(bpe);
  (void)encoder.encode(text, ids).ok();
  const TextStreamer streamer(bpe);
  const std::vector<std::string> stops = {"\n\nQuestion:", "</story>"};
  PendingText pending;
  size_t at = 0;
  for (auto _ : state) {
    StreamedText step = streamer.push(pending, {&ids[at], 1}, stops, false).value();
    pending = std::move(step.pending);
    benchmark::DoNotOptimize(step.piece.data());
    at = at + 1 == ids.size() ? 0 : at + 1;
  }
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK_CAPTURE(encode_stories, demo_warm, OPTSERVE_DEMO_MODEL, true)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_stories, demo_cold, OPTSERVE_DEMO_MODEL, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_stories, opt_warm, OPTSERVE_OPT_TOKENIZER, true)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_stories, opt_cold, OPTSERVE_OPT_TOKENIZER, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_run, letter_x, "x")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_run, letter_e, "e")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_run, spaces, " ")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_run, combining, "\u0301")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_run, emoji, "\U0001f600")->Unit(benchmark::kMillisecond);
BENCHMARK(stream_tokens);

}  // namespace
}  // namespace optserve::tokenizer
