// Our tokenizer as a filter, for comparison with a reference (tokenizer_oracle.py).
//
//   tokenizer_dump VOCABULARY MERGES encode < records of text > records of ids
//   tokenizer_dump VOCABULARY MERGES decode < records of ids  > records of text
//   tokenizer_dump VOCABULARY MERGES bench SECONDS < records of text
//
// A record is its length in bytes (32 bits) and the bytes; ids have 32 bits; all little-endian. "encode" checks that
// the ids decode to the text again, at once and streamed id by id. "bench" prints megabytes (10^6) per second of
// CPU time, first with an empty cache, then the best of the passes that fit into SECONDS.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/encoder.h"
#include "tokenizer/text_streamer.h"

namespace optserve::tokenizer {
namespace {

std::vector<std::string> read_records() {
  const std::string all{std::istreambuf_iterator<char>(std::cin), {}};
  std::vector<std::string> records;
  for (size_t at = 0; at < all.size();) {
    uint32_t bytes = 0;
    if (all.size() - at < sizeof bytes) throw Error("input ends inside a record's length");
    std::memcpy(&bytes, all.data() + at, sizeof bytes);
    at += sizeof bytes;
    if (all.size() - at < bytes) throw Error("input ends inside a record");
    records.push_back(all.substr(at, bytes));
    at += bytes;
  }
  return records;
}

void write_record(const void* bytes, size_t count) {
  const auto length = static_cast<uint32_t>(count);
  std::fwrite(&length, sizeof length, 1, stdout);
  std::fwrite(bytes, 1, count, stdout);
}

std::string streamed(const Bpe& bpe, const std::vector<TokenId>& ids) {
  const TextStreamer streamer(bpe);
  std::string text;
  PendingText pending;
  for (const TokenId id : ids) {
    StreamedText step = streamer.push(pending, {&id, 1}, {}, false).value();
    text += step.piece;
    pending = std::move(step.pending);
  }
  return text + streamer.push(pending, {}, {}, true).value().piece;
}

void encode_all(const Bpe& bpe) {
  Encoder encoder(bpe);
  std::vector<TokenId> ids;
  for (const std::string& text : read_records()) {
    ids.clear();
    if (const Status done = encoder.encode(text, ids); !done.ok()) throw Error(done.refusal().message);
    if (bpe.decode(ids) != text) throw Error("decoding does not give the text back: " + text);
    if (streamed(bpe, ids) != text) throw Error("streaming does not give the text back: " + text);
    write_record(ids.data(), ids.size() * sizeof(TokenId));
  }
}

void decode_all(const Bpe& bpe) {
  for (const std::string& record : read_records()) {
    std::vector<TokenId> ids(record.size() / sizeof(TokenId));
    std::memcpy(ids.data(), record.data(), ids.size() * sizeof(TokenId));
    const std::string text = TextStreamer(bpe).decode_text(ids);
    if (streamed(bpe, ids) != text) throw Error("streaming and decoding at once differ: " + text);
    write_record(text.data(), text.size());
  }
}

// Seconds of CPU time of one pass.
double time_pass(Encoder& encoder, const std::vector<std::string>& texts, std::vector<TokenId>& ids) {
  const std::clock_t start = std::clock();
  for (const std::string& text : texts) {
    ids.clear();
    check(encoder.encode(text, ids).ok(), "the benchmark's text is UTF-8");
  }
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

void bench(const Bpe& bpe, double wanted_seconds) {
  const std::vector<std::string> texts = read_records();
  double megabytes = 0;
  for (const std::string& text : texts) megabytes += static_cast<double>(text.size()) / 1e6;
  std::vector<TokenId> ids;
  Encoder encoder(bpe);
  const double cold = time_pass(encoder, texts, ids);
  double best = cold;
  for (double spent = 0; spent < wanted_seconds;) {
    const double pass = time_pass(encoder, texts, ids);
    best = std::min(best, pass);
    spent += pass;
  }
  std::printf("%.1f %.1f\n", megabytes / cold, megabytes / best);
}

int run(int argc, char** argv) {
  if (argc < 4) throw Error("usage: tokenizer_dump VOCABULARY MERGES encode|decode|bench [SECONDS]");
  const auto bpe = Bpe::load(argv[1], argv[2]);
  if (!bpe.ok()) throw Error(bpe.refusal().message);
  const std::string mode = argv[3];
  if (mode == "encode") {
    encode_all(bpe.value());
  } else if (mode == "decode") {
    decode_all(bpe.value());
  } else if (mode == "bench" && argc == 5) {
    bench(bpe.value(), std::stod(argv[4]));
  } else {
    throw Error("unknown mode " + mode);
  }
  return 0;
}

}  // namespace
}  // namespace optserve::tokenizer

int main(int argc, char** argv) {
  try {
    return optserve::tokenizer::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tokenizer_dump: %s\n", error.what());
    return 1;
  }
}
