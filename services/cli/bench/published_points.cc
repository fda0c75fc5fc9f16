// Source: facebookresearch/metaseq at f7ffa5f, docs/faster-transformer.md ("Benchmark Results with OPT Models") and its
// chart docs/images/opt-30b-175b.png: 4-token prompts, 256 new tokens, p4de.24xlarge nodes, batches of powers of two
// "or the maximum allowed limits before OOM". The chart has no table; the centres of its markers were measured against
// the ticks of its axes (+-0.03 ms where markers stand alone, +-0.1 ms where they overlap). Each point obeys
// QPS = batch * 1000 / (256 * ms) within what the chart resolves; where the QPS axis is coarser than that rule (30B
// fp16 MP2 at 16; 175B fp16 at 1 and 2, int8 at 1) the QPS here follows from the latency.
#include "cli/bench/published_points.h"

#include <array>

namespace optserve::cli {
namespace {

constexpr PublishedPoint k30bFp16On2[] = {{1, 23.01, 0.17},  {2, 23.11, 0.34},    {4, 23.16, 0.67},
                                          {8, 23.36, 1.34},  {16, 23.79, 2.63},   {32, 24.49, 5.12},
                                          {64, 26.87, 9.31}, {128, 33.69, 14.83}, {256, 49.08, 20.41}};
constexpr PublishedPoint k30bInt8On2[] = {{1, 15.44, 0.25},  {2, 15.54, 0.50},    {4, 15.64, 1.00},
                                          {8, 15.79, 1.98},  {16, 16.58, 3.81},   {32, 17.77, 7.02},
                                          {64, 26.42, 9.46}, {128, 31.27, 16.01}, {256, 51.40, 19.49}};
constexpr PublishedPoint k30bFp16On8[] = {{1, 10.79, 0.36},    {2, 10.94, 0.71},    {4, 11.98, 1.30},
                                          {8, 12.03, 2.60},    {16, 11.78, 5.31},   {32, 12.18, 10.24},
                                          {64, 14.35, 17.45},  {128, 18.76, 26.64}, {256, 27.36, 36.55},
                                          {512, 39.63, 50.47}, {1024, 72.32, 55.31}};
constexpr PublishedPoint k30bInt8On8[] = {{1, 11.14, 0.35},    {2, 11.38, 0.69},    {4, 12.37, 1.26},
                                          {8, 11.93, 2.62},    {16, 12.03, 5.20},   {32, 13.52, 9.24},
                                          {64, 17.37, 14.37},  {128, 22.32, 22.44}, {256, 26.42, 37.80},
                                          {512, 39.18, 51.04}, {1024, 72.57, 55.12}};
constexpr PublishedPoint k175bFp16On8[] = {{1, 40.50, 0.096},  {2, 43.08, 0.181},  {4, 42.75, 0.371}, {8, 43.20, 0.733},
                                           {16, 44.50, 1.404}, {32, 47.32, 2.643}, {64, 56.64, 4.418}};
constexpr PublishedPoint k175bInt8On8[] = {{1, 28.87, 0.135},  {2, 30.29, 0.258},  {4, 29.50, 0.537},
                                           {8, 31.08, 1.012},  {16, 32.59, 1.920}, {32, 35.11, 3.561},
                                           {64, 49.53, 5.048}, {128, 57.00, 8.774}};

constexpr std::array<PublishedSeries, 6> kSeries = {{{"opt-30b", "fp16", 2, k30bFp16On2},
                                                     {"opt-30b", "int8", 2, k30bInt8On2},
                                                     {"opt-30b", "fp16", 8, k30bFp16On8},
                                                     {"opt-30b", "int8", 8, k30bInt8On8},
                                                     {"opt-175b", "fp16", 8, k175bFp16On8},
                                                     {"opt-175b", "int8", 8, k175bInt8On8}}};

}  // namespace

std::span<const PublishedSeries> published_series() { return kSeries; }

}  // namespace optserve::cli
