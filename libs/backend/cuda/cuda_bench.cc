// Times single operations of the CUDA backend on the shapes of OPT models: microseconds per call, and the rate of
// memory or arithmetic. Each figure is a recorded graph of calls over rotating buffers. Products of fp8 may round x to
// fp8.
//   cuda_bench [bf16] [attention | formats | layers | prompts | sampling | zeros] [HIDDEN]
// HIDDEN picks one of the widths of `formats` and `layers`.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "backend/backend.h"
#include "base/limits.h"
#include "sampling/packed_rules.h"

namespace optserve::backend {
namespace {

constexpr int kCalls = 24;  // of one graph
constexpr int kReplays = 15;
constexpr size_t kRotated = size_t{256} << 20;  // bytes that a figure cycles through

class Bench {
 public:
  explicit Bench(DType dtype)
      : backend_(make_backend({.device = {DeviceKind::kCuda, 0},
                               .compute_dtype = dtype,
                               .relu_skip = ReluSkip::kAlways,
                               .fp8_activations = true})) {
    std::printf("%s\n", backend_->description().c_str());
  }

  void linear(int64_t rows, int64_t in, int64_t out, bool logits,
              quant::QuantFormat format = quant::QuantFormat::kF16) {
    std::vector<quant::Weight> weights;
    const size_t bytes = backend_->weight_bytes(format, out, in);
    const int copies = static_cast<int>(std::min<size_t>(kCalls, kRotated / bytes + 1));
    for (int i = 0; i < copies; ++i) weights.push_back(backend_->random_weight(random(out, in), format));
    const Array x(*this, {rows, in}), bias(*this, {1, out});
    const DType out_type = logits ? DType::kF32 : backend_->compute_dtype();
    const Buffer y = backend_->allocate(static_cast<size_t>(rows * out) * 4);
    const double us = time([&](int call) {
      const Tensor none, b = bias.buffer.view(backend_->compute_dtype(), {out});
      backend_->linear(x.view, weights[static_cast<size_t>(call % copies)], logits ? none : b, Activation::kNone,
                       y.view(out_type, {rows, out}));
    });
    const double tb = static_cast<double>(bytes) / us / 1e6;
    std::printf("linear %-4s %4ld x [%5ld, %5ld]  %8.1f us  %5.2f TB/s of weights  %6.1f TFLOP/s\n",
                info(format).name.data(), rows, out, in, us, tb, 2.0 * static_cast<double>(rows * in * out) / us / 1e6);
  }

  // A product of x with a share of zeros, done as a whole and without what is multiplied by zeros.
  void sparse(int64_t rows, int64_t in, int64_t out, double zeros, quant::QuantFormat format) {
    const Buffer x = backend_->allocate(static_cast<size_t>(rows * in) * 2);
    std::vector<float> values(static_cast<size_t>(rows * in));
    std::mt19937 random_bits(1);
    std::bernoulli_distribution is_zero(zeros);
    for (float& value : values) value = is_zero(random_bits) ? 0.0f : 0.01f * static_cast<float>(random_bits() % 100);
    std::vector<std::byte> bytes(values.size() * 2);
    convert_from_f32(values.data(), backend_->compute_dtype(), bytes.data(), values.size());
    const Tensor view = x.view(backend_->compute_dtype(), {rows, in});
    backend_->upload(view, bytes.data());
    const Buffer y = backend_->allocate(static_cast<size_t>(rows * out) * 2);
    std::vector<quant::Weight> weights;
    const int copies =
        static_cast<int>(std::min<size_t>(kCalls, kRotated / backend_->weight_bytes(format, out, in) + 1));
    for (int i = 0; i < copies; ++i) weights.push_back(backend_->random_weight(random(out, in), format));
    const auto product = [&](int call) {
      backend_->linear(view, weights[static_cast<size_t>(call % copies)], {}, Activation::kNone,
                       y.view(backend_->compute_dtype(), {rows, out}));
    };
    const double whole = time(product);
    for (quant::Weight& weight : weights) backend_->prepare_sparse_input(weight);
    const double skipping = time(product);
    std::printf("%-4s %ld x [%5ld, %5ld], %3.0f%% zeros  whole %7.1f us  skipping %7.1f us\n", info(format).name.data(),
                rows, out, in, 100 * zeros, whole, skipping);
  }

  void decode(int64_t sequences, int64_t context, int64_t heads, int64_t head_dim, bool int8) {
    const int64_t blocks_each = (context + limits::kKvBlockTokens - 1) / limits::kKvBlockTokens;
    const int64_t blocks = sequences * blocks_each, width = heads * head_dim;
    const size_t bytes = static_cast<size_t>(blocks * limits::kKvBlockTokens * width) * (int8 ? 1 : 2);
    const int copies = static_cast<int>(std::min<size_t>(kCalls, kRotated / (2 * bytes) + 1));
    std::vector<KvLayer> layers;
    for (int i = 0; i < copies; ++i) layers.push_back(kv_layer(blocks, heads, head_dim, int8));
    const AttentionBatch batch = decode_batch(sequences, context);
    const Array qkv(*this, {sequences, 3 * width}), out(*this, {sequences, width});
    const Array norm(*this, {1, 64});
    const Tensor vector = norm.buffer.view(backend_->compute_dtype(), {64});
    const double us = time([&](int call) {
      if (call == 0) backend_->layer_norm(norm.view, vector, vector, norm.view);  // as at the beginning of a step
      backend_->attention(qkv.view, batch, layers[static_cast<size_t>(call % copies)], out.view);
    });
    const double read = 2.0 * static_cast<double>(sequences * context * width) * (int8 ? 1 : 2);
    std::printf("decode %4ld sequences, context %4ld, %2ld heads of %3ld%s  %8.1f us  %5.2f TB/s\n", sequences, context,
                heads, head_dim, int8 ? ", int8" : "", us, read / us / 1e6);
    held_.clear();
  }

  // What a decoder layer adds to a decode step, then what the step saves without one of the layer's parts. Parts
  // overlap, so a part that runs alongside others saves less than it takes alone.
  void layer(int64_t rows, int64_t hidden, int64_t heads, quant::QuantFormat format) {
    enum Part : uint32_t { kNothing = 0, kQkv = 1, kAttention = 2, kOut = 4, kNorms = 8, kUp = 16, kDown = 32 };
    constexpr int64_t kContext = 132;  // the mean of the latency benchmark, 4 + 256 tokens
    constexpr int kLayers = 12;
    const AttentionBatch batch = decode_batch(rows, kContext);
    const int64_t shapes[4][2] = {{3 * hidden, hidden}, {hidden, hidden}, {4 * hidden, hidden}, {hidden, 4 * hidden}};
    std::vector<std::array<quant::Weight, 4>> weights(kLayers);
    std::vector<KvLayer> caches;
    for (std::array<quant::Weight, 4>& of_layer : weights) {
      for (size_t i = 0; i < 4; ++i) of_layer[i] = backend_->random_weight(random(shapes[i][0], shapes[i][1]), format);
      caches.push_back(kv_layer(batch.block_table.dim(0) * batch.block_table.dim(1), heads, hidden / heads, false));
    }
    const Array x(*this, {rows, hidden}), y(*this, {rows, hidden}), residual(*this, {rows, hidden});
    const Array qkv(*this, {rows, 3 * hidden}), wide(*this, {rows, 4 * hidden}), vectors(*this, {1, 4 * hidden});
    const auto vector = [&](int64_t n) { return vectors.buffer.view(backend_->compute_dtype(), {n}); };
    const auto norm = [&] {
      backend_->add_bias_residual_norm(y.view, vector(hidden), residual.view, vector(hidden), vector(hidden), x.view);
    };
    const auto time_without = [&](uint32_t part) {
      return time(
          [&](int i) {
            const auto& [of_qkv, of_out, of_up, of_down] = weights[static_cast<size_t>(i)];
            if (i == 0) backend_->layer_norm(residual.view, vector(hidden), vector(hidden), x.view);
            if (part != kQkv) backend_->linear(x.view, of_qkv, vector(3 * hidden), Activation::kNone, qkv.view);
            if (part != kAttention) backend_->attention(qkv.view, batch, caches[static_cast<size_t>(i)], x.view);
            if (part != kOut) backend_->linear(x.view, of_out, {}, Activation::kNone, y.view);
            if (part != kNorms) norm();
            if (part != kUp) backend_->linear(x.view, of_up, vector(4 * hidden), Activation::kRelu, wide.view);
            if (part != kDown) backend_->linear(wide.view, of_down, {}, Activation::kNone, y.view);
            if (part != kNorms) norm();
          },
          kLayers);
    };
    const double all = time_without(kNothing);
    std::printf("layer %-4s %4ld rows, hidden %5ld  %8.1f us;", info(format).name.data(), rows, hidden, all);
    for (const auto& [part, name] : {std::pair{kQkv, "qkv"},
                                     {kAttention, "attention"},
                                     {kOut, "out"},
                                     {kNorms, "norms"},
                                     {kUp, "up"},
                                     {kDown, "down"}}) {
      std::printf("  %s %.1f", name, all - time_without(part));
    }
    std::printf("\n");
    held_.clear();
  }

  void prefill(int64_t context, int64_t heads, int64_t head_dim, bool int8) {
    const int64_t blocks = (context + limits::kKvBlockTokens - 1) / limits::kKvBlockTokens, width = heads * head_dim;
    const KvLayer layer = kv_layer(blocks, heads, head_dim, int8);
    std::vector<int32_t> table(static_cast<size_t>(blocks)), slots(static_cast<size_t>(context)), tiles;
    std::iota(table.begin(), table.end(), 0);
    std::iota(slots.begin(), slots.end(), 0);
    for (int64_t row = 0; row < context; row += kAttentionTileRows) {
      tiles.insert(tiles.end(), {0, static_cast<int32_t>(row)});
    }
    AttentionBatch batch;
    batch.num_sequences = 1;
    batch.row_begin = ints({0, static_cast<int32_t>(context)}, {2});
    batch.context = ints({static_cast<int32_t>(context)}, {1});
    batch.table_rows = ints({0}, {1});
    batch.block_table = ints(table, {1, blocks});
    batch.kv_slots = ints(slots, {context});
    batch.tiles = ints(tiles, {static_cast<int64_t>(tiles.size()) / 2, 2});
    const Array qkv(*this, {context, 3 * width}), out(*this, {context, width});
    const auto attend = [&](int) { backend_->attention(qkv.view, batch, layer, out.view); };
    const double us = time(attend);
    batch.tiles = ints({}, {0, 2});
    const double append_us = time(attend);
    const double flops = 4.0 * 0.5 * static_cast<double>(context * context * width);
    std::printf(
        "prompt of %4ld tokens, %2ld heads of %3ld%s  %8.1f us  %6.1f TFLOP/s of the causal half, %.1f us of it "
        "storing\n",
        context, heads, head_dim, int8 ? ", int8" : "", us, flops / us / 1e6, append_us);
    held_.clear();
  }

  void sample(int64_t rows, const sampling::SamplingParams& params, const char* name,
              const sampling::TokenRules& rules = sampling::TokenRules()) {
    constexpr int64_t kVocab = 50272;
    constexpr int32_t kKnown = 200;
    const Buffer logits = backend_->allocate(static_cast<size_t>(rows * kVocab) * sizeof(float));
    std::vector<float> host(static_cast<size_t>(rows * kVocab));
    for (size_t i = 0; i < host.size(); ++i) host[i] = static_cast<float>((i * 2654435761u >> 8) % 4096) / 300.0f;
    backend_->upload(logits.view(DType::kF32, {rows, kVocab}), host.data());
    std::vector<sampling::PackedSampleRow> packed;
    for (int32_t i = 0; i < rows; ++i) packed.push_back(pack(params, !rules.empty(), i, kKnown, kKnown / 2));
    const Buffer device_rows = backend_->allocate(packed.size() * sizeof(sampling::PackedSampleRow));
    std::vector<int32_t> known(static_cast<size_t>(rows) * (kKnown + 1));
    for (size_t i = 0; i < known.size(); ++i) known[i] = static_cast<int32_t>(i * 7919 % 50265);
    SampleBatch batch;
    batch.rows = device_rows.view(DType::kU8, {rows, sizeof(sampling::PackedSampleRow)});
    backend_->upload(batch.rows, packed.data());
    batch.features = sampling::sample_features(params, !rules.empty());
    batch.history = ints(known, {rows, kKnown + 1});
    batch.vocab_real = 50265;
    batch.rules = rules_table(rows, rules);
    constexpr int64_t kBest = limits::kTopLogprobsMax;
    const Buffer logprobs = backend_->allocate(static_cast<size_t>(rows) * sizeof(float));
    const Buffer best_logprobs = backend_->allocate(static_cast<size_t>(rows * kBest) * sizeof(float));
    const SampleOutputs out{ints(std::vector<int32_t>(static_cast<size_t>(rows)), {rows}),
                            logprobs.view(DType::kF32, {rows}),
                            ints(std::vector<int32_t>(static_cast<size_t>(rows * kBest)), {rows, kBest}),
                            best_logprobs.view(DType::kF32, {rows, kBest})};
    const double us = time([&](int) { backend_->sample(logits.view(DType::kF32, {rows, kVocab}), batch, out); });
    std::printf("sample %4ld rows of %ld, %-24s %8.1f us\n", rows, kVocab, name, us);
    held_.clear();
  }

  void norm(int64_t rows, int64_t width) {
    const Array x(*this, {rows, width}), residual(*this, {rows, width}), out(*this, {rows, width});
    const Array gamma(*this, {1, width});
    const Tensor g = gamma.buffer.view(backend_->compute_dtype(), {width});
    const double us = time([&](int) { backend_->add_bias_residual_norm(x.view, g, residual.view, g, g, out.view); });
    std::printf("bias + residual + norm %4ld x %5ld  %8.1f us\n", rows, width, us);
  }

 private:
  struct Array {
    Buffer buffer;
    Tensor view;
    Array(Bench& bench, std::initializer_list<int64_t> shape)
        : buffer(bench.backend_->random_table(random(*shape.begin(), *(shape.begin() + 1)))),
          view(buffer.view(bench.backend_->compute_dtype(), shape)) {}
  };

  static RandomBlock random(int64_t rows, int64_t cols) {
    return {.key = 5, .reach = 0.05f, .runs = {{0, rows}}, .cols = cols, .whole_cols = cols};
  }

  // Sequences that decode one token each, with their blocks in random order. Held until held_ is cleared.
  AttentionBatch decode_batch(int64_t sequences, int64_t context) {
    const int64_t blocks_each = (context + limits::kKvBlockTokens - 1) / limits::kKvBlockTokens;
    std::vector<int32_t> table(static_cast<size_t>(sequences * blocks_each)), rows(static_cast<size_t>(sequences)),
        slots(rows.size());
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>((i * 7919 + 13) % table.size());
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<int32_t> begin = rows;
    begin.push_back(static_cast<int32_t>(sequences));
    AttentionBatch batch;
    batch.num_sequences = batch.num_decodes = sequences;
    batch.row_begin = ints(begin, {sequences + 1});
    batch.context = ints(std::vector<int32_t>(rows.size(), static_cast<int32_t>(context)), {sequences});
    batch.table_rows = ints(rows, {sequences});
    batch.block_table = ints(table, {sequences, blocks_each});
    batch.kv_slots = ints(slots, {sequences});
    batch.tiles = ints({}, {0, 2});
    return batch;
  }

  // A layer of a cache, held until held_ is cleared. Int8 cells are arbitrary bits with scales of zero.
  KvLayer kv_layer(int64_t blocks, int64_t heads, int64_t head_dim, bool int8) {
    const auto elements = [&](int64_t per_block) -> const Buffer& {
      return held_.emplace_back(backend_->random_table(random(blocks, heads * limits::kKvBlockTokens * per_block)));
    };
    const std::initializer_list<int64_t> shape{blocks, heads, limits::kKvBlockTokens, head_dim};
    const DType type = int8 ? DType::kI8 : backend_->compute_dtype();
    KvLayer layer;
    layer.keys = elements(head_dim).view(type, shape);
    layer.values = elements(head_dim).view(type, shape);
    if (!int8) return layer;
    layer.key_scales = elements(2).view(DType::kF32, {blocks, heads, limits::kKvBlockTokens});
    layer.value_scales = elements(2).view(DType::kF32, {blocks, heads, limits::kKvBlockTokens});
    backend_->fill_zero(layer.key_scales);
    backend_->fill_zero(layer.value_scales);
    return layer;
  }

  Tensor ints(const std::vector<int32_t>& values, std::initializer_list<int64_t> shape) {
    held_.push_back(backend_->allocate(values.size() * sizeof(int32_t)));
    const Tensor view = held_.back().view(DType::kI32, shape);
    backend_->upload(view, values.data());
    backend_->synchronize();
    return view;
  }

  Tensor rules_table(int64_t rows, const sampling::TokenRules& rules) {
    const std::vector<int32_t> one = pack(rules);
    std::vector<int32_t> all(static_cast<size_t>(rows) * limits::kTokenRulesWordsMax);
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      std::copy(one.begin(), one.end(), all.begin() + static_cast<ptrdiff_t>(row * limits::kTokenRulesWordsMax));
    }
    return ints(all, {rows, limits::kTokenRulesWordsMax});
  }

  // Median microseconds of one of the calls of a graph.
  template <class Call>
  double time(const Call& call, int calls = kCalls) {
    const uint64_t key = ++key_;
    const auto body = [&] {
      for (int i = 0; i < calls; ++i) call(i);
    };
    std::vector<double> times;
    for (int replay = 0; replay < kReplays + 3; ++replay) {
      backend_->synchronize();
      const auto begin = std::chrono::steady_clock::now();
      backend_->capture_or_run(key, body);
      backend_->synchronize();
      const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
      if (replay >= 3) times.push_back(took.count() / calls);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

  std::unique_ptr<Backend> backend_;
  std::vector<Buffer> held_;
  uint64_t key_ = 0;
};

void run_sampling(Bench& bench) {
  sampling::TokenRules rules;
  rules.bad_words = {{17, 4711}, {50, 60, 70}};
  rules.stop_ids = {50118};
  for (TokenId id = 0; id < 300; ++id) rules.logit_bias.push_back({id * 160, 1.5f});
  const sampling::SamplingParams chain{
      .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .repetition_penalty = 1.2f, .logprobs = 5};
  for (const int64_t rows : {1, 64, 256, 512}) {
    bench.sample(rows, {.temperature = 0}, "greedy");
    bench.sample(rows, {.temperature = 0, .logprobs = 5}, "greedy, 5 best");
    bench.sample(rows, {.temperature = 0.8f}, "whole distribution");
    bench.sample(rows, {.temperature = 0.8f}, "rules", rules);
    bench.sample(rows, {.temperature = 0.8f, .top_k = 50}, "top-k 50");
    bench.sample(rows, {.temperature = 0.8f, .top_p = 0.9f}, "top-p 0.9");
    bench.sample(rows, {.temperature = 0.8f, .min_p = 0.05f}, "min-p 0.05");
    bench.sample(rows, {.temperature = 0.8f, .typical_p = 0.9f}, "typical-p 0.9");
    bench.sample(rows, {.temperature = 0.8f, .top_p = 0.9f, .profile = sampling::SamplingProfile::kFasterTransformer},
                 "top-p 0.9 as FT");
    bench.sample(rows, {.temperature = 0.8f, .top_k = 50, .top_p = 0.9f, .repetition_penalty = 1.2f}, "penalty, k, p");
    bench.sample(rows, chain, "penalty, k, p, 5 best");
    bench.sample(rows, chain, "all of that and rules", rules);
  }
}

void run_attention(Bench& bench) {
  for (const bool int8 : {false, true}) {
    for (const int64_t sequences : {1, 8, 32, 64, 256, 512}) {
      for (const int64_t context : {20, 132, 1024}) {
        if (sequences * context <= 256 * 1024) bench.decode(sequences, context, 32, 128, int8);
        if (sequences <= 64) bench.decode(sequences, context, 32, 80, int8);
        bench.decode(sequences, context, 12, 64, int8);
      }
    }
    for (const int64_t context : {512, 2048}) {
      for (const auto& [heads, head_dim] : {std::pair{12, 64}, {32, 80}, {32, 128}}) {
        bench.prefill(context, heads, head_dim, int8);
      }
    }
  }
}

// The products of OPT-1.3B, 6.7B and 30B in every format side by side.
void run_formats(Bench& bench, const std::vector<int64_t>& widths) {
  for (const int64_t h : widths) {
    for (const auto& [in, out] : {std::pair{h, 3 * h}, {h, h}, {h, 4 * h}, {4 * h, h}}) {
      for (const int64_t rows : {1, 8, 16, 32, 64, 128, 256, 512, 1024}) {
        for (const quant::QuantFormat format : {quant::QuantFormat::kF16, quant::QuantFormat::kInt8,
                                                quant::QuantFormat::kFp8, quant::QuantFormat::kInt4}) {
          bench.linear(rows, in, out, false, format);
        }
      }
    }
  }
}

void run_layers(Bench& bench, const std::vector<int64_t>& widths) {
  for (const int64_t h : widths) {
    for (const int64_t rows : {1, 8, 32, 64, 128, 256}) {
      for (const quant::QuantFormat format :
           {quant::QuantFormat::kF16, quant::QuantFormat::kInt8, quant::QuantFormat::kFp8, quant::QuantFormat::kInt4}) {
        bench.layer(rows, h, h == 2048 ? 32 : h / 128, format);
      }
    }
  }
}

// What a layer of OPT-1.3B, 6.7B and 30B does with prompts.
void run_prompts(Bench& bench) {
  for (const auto& [h, heads, head_dim] : {std::tuple<int64_t, int64_t, int64_t>{2048, 32, 64}, {4096, 32, 128}}) {
    for (const int64_t rows : {512, 1920, 2048, 8192}) {
      for (const auto& [in, out] : {std::pair{h, 3 * h}, {h, h}, {h, 4 * h}, {4 * h, h}}) {
        bench.linear(rows, in, out, false);
      }
      bench.norm(rows, h);
      if (rows <= 2048) bench.prefill(rows, heads, head_dim, false);
    }
  }
}

// The down projections of OPT-125M, 1.3B, 6.7B and 30B after their ReLU.
void run_zeros(Bench& bench) {
  for (const int64_t h : {768, 2048, 4096, 7168}) {
    for (const quant::QuantFormat format : {quant::QuantFormat::kF16, quant::QuantFormat::kInt8}) {
      for (const int64_t rows : {1, 4, 8}) {
        for (const double zeros : {0.0, 0.5, 0.95}) bench.sparse(rows, 4 * h, h, zeros, format);
      }
    }
  }
}

void run(DType dtype, const std::function<bool(const char*)>& has) {
  Bench bench(dtype);
  if (has("attention")) return run_attention(bench);
  std::vector<int64_t> widths;
  for (const int64_t h : {2048, 4096, 7168}) {
    if (has(std::to_string(h).c_str())) widths = {h};
  }
  if (widths.empty()) widths = {2048, 4096, 7168};
  if (has("formats")) return run_formats(bench, widths);
  if (has("layers")) return run_layers(bench, widths);
  if (has("prompts")) return run_prompts(bench);
  if (has("sampling")) return run_sampling(bench);
  if (has("zeros")) return run_zeros(bench);
  for (const int64_t h : {768, 2048, 4096, 7168}) {
    for (const int64_t rows : {1, 4, 8, 16, 64, 256}) {
      for (const auto& [in, out] : {std::pair{h, 3 * h}, {h, h}, {h, 4 * h}, {4 * h, h}}) {
        bench.linear(rows, in, out, false);
      }
    }
  }
  for (const int64_t rows : {1, 8, 64, 256}) bench.linear(rows, 4096, 50272, true);
  run_attention(bench);
  run_sampling(bench);
  for (const int64_t width : {768, 4096, 12288}) {
    for (const int64_t rows : {1, 64, 512}) bench.norm(rows, width);
  }
}

}  // namespace
}  // namespace optserve::backend

int main(int argc, char** argv) {
  const std::span arguments(argv + 1, static_cast<size_t>(argc - 1));
  const auto has = [&](const char* word) {
    return std::ranges::any_of(arguments, [&](const char* argument) { return std::strcmp(argument, word) == 0; });
  };
  try {
    optserve::backend::run(has("bf16") ? optserve::DType::kBF16 : optserve::DType::kF16, has);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "cuda_bench: %s\n", e.what());
    return 1;
  }
  return 0;
}
