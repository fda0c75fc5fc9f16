// Stand-ins for the scheduler's peers: a tokenizer whose ids are bytes, and a model whose tokens follow from the seed
// and the position alone.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "protocol/codec.h"
#include "scheduler/jobs/job.h"

namespace optserve::scheduler::testing {

inline constexpr TokenId kEndOfText = 2;    // also the first id of every prompt
inline constexpr TokenId kFirstByteId = 3;  // id of byte 0
inline constexpr int32_t kVocab = 259;
inline constexpr int32_t kContext = 512;

inline protocol::ModelInfo model_info(const std::string& name, const std::string& vocabulary = "v1") {
  return {name, vocabulary, "m1", kContext, kVocab};
}

inline InstanceId instance(uint8_t number) {
  InstanceId id;
  id.bytes.fill(number);
  return id;
}

inline protocol::Encoded encode_bytes(const protocol::Encode& question) {
  protocol::Encoded answer;
  for (const protocol::EncodeItem& item : question.items) {
    protocol::EncodedItem encoded;
    encoded.ticket = item.ticket;
    encoded.ids.push_back(kEndOfText);
    encoded.count = static_cast<uint32_t>(item.text.size()) + 1;
    for (const char c : item.text.substr(0, 2048)) encoded.ids.push_back(kFirstByteId + static_cast<uint8_t>(c));
    answer.items.push_back(std::move(encoded));
  }
  return answer;
}

// Text up to the first complete stop string; what may begin one is held back in the state.
inline protocol::DecodedItem decode_item(const protocol::DecodeItem& item) {
  protocol::DecodedItem answer;
  answer.ticket = item.ticket;
  std::string text(item.state.data.begin(), item.state.data.end());
  uint32_t ids = 0;
  for (const TokenId id : item.ids) {
    ++ids;
    if (id >= kFirstByteId) text += static_cast<char>(id - kFirstByteId);
    for (size_t stop = 0; stop < item.stop.size(); ++stop) {
      const size_t found = text.find(item.stop[stop]);
      if (found == std::string::npos) continue;
      answer.text = text.substr(0, found);
      answer.stop = static_cast<int32_t>(stop);
      answer.stop_ids = ids;
      return answer;
    }
  }
  size_t held = 0;
  for (const std::string& stop : item.stop) {
    for (size_t length = 1; length < stop.size() && !item.flush; ++length) {
      if (text.ends_with(stop.substr(0, length))) held = std::max(held, length);
    }
  }
  answer.text = text.substr(0, text.size() - held);
  answer.state.data.assign(text.end() - static_cast<ptrdiff_t>(held), text.end());
  return answer;
}

inline protocol::Decoded decode_bytes(const protocol::Decode& question) {
  protocol::Decoded answer;
  for (const protocol::DecodeItem& item : question.items) answer.items.push_back(decode_item(item));
  return answer;
}

// The model's token at an output position: a lower-case letter, or now and then the end.
inline TokenId model_token(uint64_t seed, size_t position) {
  uint64_t x = (seed + 1) * 0x9E3779B97F4A7C15u ^ (position + 1) * 0xD1B54A32D192ED03u;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 32;
  return x % 50 == 0 ? kEndOfText : static_cast<TokenId>(kFirstByteId + 'a' + x % 26);
}

// What a job's output must be, however often it was interrupted.
struct Reference {
  std::vector<TokenId> ids;
  std::string text;
  sampling::FinishReason reason = sampling::FinishReason::kLength;
};
inline Reference reference_of(const protocol::JobSpec& spec) {
  Reference expected;
  for (size_t position = 0; position < static_cast<size_t>(spec.max_new_tokens); ++position) {
    const TokenId id = model_token(spec.sampling.seed, position);
    expected.ids.push_back(id);
    if (id == kEndOfText) {
      expected.reason = sampling::FinishReason::kEndOfText;
      break;
    }
    expected.text += static_cast<char>(id - kFirstByteId);
    for (const std::string& stop : spec.stop) {
      const size_t found = expected.text.find(stop);
      if (found == std::string::npos) continue;
      expected.text.resize(found);
      expected.reason = sampling::FinishReason::kStop;
      return expected;
    }
  }
  return expected;
}

// One step of the model for a dispatched job that has `done` output tokens.
inline void add_step(protocol::Tokens& message, const protocol::DispatchItem& item, size_t done) {
  const TokenId id = model_token(item.sampling.seed, done);
  auto reason = sampling::FinishReason::kNone;
  if (done + 1 == static_cast<size_t>(item.max_new_tokens)) reason = sampling::FinishReason::kLength;
  if (id == kEndOfText) reason = sampling::FinishReason::kEndOfText;
  message.leases.push_back(item.lease);
  message.positions.push_back(static_cast<uint32_t>(done));
  message.tokens.push_back(id);
  message.finished.push_back(static_cast<uint8_t>(reason));
}

inline protocol::JobSpec job_spec(const std::string& key, const std::string& prompt = "once", int32_t max_new = 8) {
  protocol::JobSpec spec;
  spec.key = key;
  spec.model = "opt";
  spec.prompt = prompt;
  spec.max_new_tokens = max_new;
  spec.sampling.seed = std::hash<std::string>()(key) % 1000;
  return spec;
}

}  // namespace optserve::scheduler::testing
