// Products with quantised weights, by kernels that read the codes or, if there is none for a call, by dequantising the
// weights a part at a time.
#include <algorithm>

#include "backend/cuda/linear_tuner.h"

namespace optserve::backend::cuda {
namespace {

using Way = LinearChoice::Way;

constexpr int64_t kWgmmaRowsMin = 5;  // with fewer, another kernel has always been faster

kernels::QuantisedLinearArgs quantised_args(const LinearCall& call) {
  return {.format = call.format,
          .element = call.element,
          .out_f32 = call.out_f32,
          .relu = call.relu,
          .x = call.x,
          .x_stride = call.x_stride,
          .values = call.weight,
          .scales = call.scales,
          .bias = call.bias,
          .y = call.y,
          .y_stride = call.y_stride,
          .rows = call.rows,
          .in = call.in,
          .out = call.out};
}

}  // namespace

std::vector<LinearTuner::Choice> LinearTuner::quantised_candidates(const LinearCall& call) const {
  const kernels::QuantisedLinearArgs args = quantised_args(call);
  std::vector<Choice> choices;
  if (kernels::can_quantised_linear(args, limits_)) choices.push_back({.way = Way::kQuantised});
  if (call.rows >= kWgmmaRowsMin) {
    for (const int split : {0, 1, 2, 4}) {
      for (const int outputs : {128, 192}) {
        const kernels::WgmmaWay way{outputs, split};
        if (kernels::can_wgmma_linear(args, way, limits_)) choices.push_back({.way = Way::kWgmma, .wgmma = way});
      }
    }
  }
  choices.push_back({.way = Way::kDequantised});
  for (const Choice& choice : byte_candidates(call)) choices.push_back(choice);
  return choices;
}

bool LinearTuner::try_quantised(const LinearCall& call, const Choice& choice) {
  const kernels::QuantisedLinearArgs args = quantised_args(call);
  switch (choice.way) {
    case Way::kQuantised:
      if (!kernels::can_quantised_linear(args, limits_)) return false;
      expect(kernels::quantised_linear(args, limits_, stream_), "quantised_linear");
      return true;
    case Way::kWgmma:
      if (!kernels::can_wgmma_linear(args, choice.wgmma, limits_)) return false;
      expect(kernels::wgmma_linear(args, choice.wgmma, kernels::wgmma_scratch(shared_sums_.data(), limits_), limits_,
                                   stream_),
             "wgmma_linear");
      return true;
    case Way::kBytes:
      return try_bytes(call, choice);
    case Way::kDequantised:
      run_dequantised(call, false);
      return true;
    default:
      return false;
  }
}

void LinearTuner::run_dequantised(const LinearCall& call, bool may_time) {
  const size_t row_bytes = static_cast<size_t>(call.in) * 2;
  constexpr int64_t kBand = kernels::kBandOutputs;
  const auto rows_fit = static_cast<int64_t>(dequantised_.bytes() / row_bytes) / kBand * kBand;
  if (rows_fit == 0) throw no_way(call);
  const int64_t values = kernels::packed_bytes(call.format, kBand, call.in);  // of a band
  const int64_t scales = kernels::packed_scales(call.format, kBand, call.in);
  const size_t y_bytes = call.out_f32 ? 4 : 2;
  for (int64_t first = 0; first < call.out; first += rows_fit) {
    const int64_t band = first / kBand;
    const kernels::DequantiseArgs part{.format = call.format,
                                       .element = call.element,
                                       .values = static_cast<const std::byte*>(call.weight) + band * values,
                                       .scales = call.scales + band * scales,
                                       .rows = std::min(rows_fit, call.out - first),
                                       .in = call.in,
                                       .out = dequantised_.data()};
    expect(kernels::dequantise(part, stream_), "dequantise");
    LinearCall plain = call;
    plain.format = kernels::WeightFormat::kPlain;
    plain.weight = dequantised_.data();
    plain.scales = nullptr;
    plain.out = part.rows;
    if (call.bias != nullptr) plain.bias = static_cast<const std::byte*>(call.bias) + first * 2;
    plain.y = static_cast<std::byte*>(call.y) + static_cast<size_t>(first) * y_bytes;
    run_plain(plain, may_time);
  }
}

void LinearTuner::run_quantised(const LinearCall& call, bool may_time) {
  const Key key = key_of(call);
  const Choice* known = choices_.find(key);
  const auto try_one = [this](const LinearCall& one, const Choice& choice) { return try_quantised(one, choice); };
  if (known == nullptr && may_time) {
    run_dequantised(call, true);  // chooses for the plain parts
    known = &choices_.keep(key, fastest(call, quantised_candidates(call), try_one));
  }
  if (known != nullptr && try_one(call, *known)) return;
  for (const Choice& choice : quantised_candidates(call)) {
    if (try_one(call, choice)) return;
  }
  throw no_way(call);
}

}  // namespace optserve::backend::cuda
