// Every limit of the system, in one place. A number that comes from outside is checked against its limit before
// anything is allocated by it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace optserve::limits {

// Messages.
inline constexpr size_t kClientMessageBytesMax = 1 << 20;    // one frame from a client
inline constexpr size_t kInternalMessageBytesMax = 4 << 20;  // one frame between our own processes
inline constexpr size_t kMessageDepthMax = 8;                // nesting of msgpack containers
inline constexpr size_t kMessageMapMax = 64;                 // entries of one map
inline constexpr size_t kMessageArrayMax = 4096;             // entries of one array
inline constexpr size_t kMessageStringMax = 64 << 10;        // bytes of one string or binary
inline constexpr size_t kSchedulersMax = 16;                 // that one service registers with

// Jobs.
inline constexpr size_t kPromptBytesMax = 64 << 10;
inline constexpr size_t kContextTokensMax = 2048;  // OPT's position table
inline constexpr size_t kVocabularyMax = 1 << 18;
inline constexpr size_t kJobsPerSubmitMax = 256;
inline constexpr size_t kKeyBytesMax = 128;  // idempotency key
inline constexpr size_t kModelNameBytesMax = 64;
inline constexpr size_t kTenantBytesMax = 64;
inline constexpr size_t kGroupBytesMax = 128;  // name of a job group
inline constexpr size_t kStopStringsMax = 16;
inline constexpr size_t kStopStringBytesMax = 64;
inline constexpr size_t kStopIdsMax = 16;
inline constexpr size_t kBadWordsMax = 64;           // given as text
inline constexpr size_t kTokenRulesWordsMax = 4096;  // of a request's biases, allowed ids and bad words, packed
inline constexpr int32_t kTopLogprobsMax = 20;       // best tokens reported beside the drawn one
inline constexpr int32_t kBeamWidthMax = 10;         // each step needs the best 2 * width tokens of a beam
inline constexpr int64_t kJobTtlMsMin = 1;
inline constexpr int64_t kJobTtlMsMax = 3'600'000;
inline constexpr int64_t kJobDelayMsMax = 7LL * 24 * 3'600'000;
inline constexpr int64_t kResultTtlMsMax = 7LL * 24 * 3'600'000;
inline constexpr int kPriorityMax = 9;
inline constexpr int kAttemptsMax = 10;
inline constexpr size_t kOpenJobsMax = 100'000;
inline constexpr size_t kJobsPerListMax = 1'000;    // lines of one JobList
inline constexpr size_t kLossReasonBytesMax = 256;  // why an attempt was lost
inline constexpr size_t kHeldNamesMax = 1'024;      // models and services that operators hold

// Streams: how much may be in flight to one client, in bytes (protocol::Credit).
inline constexpr uint64_t kStreamWindowMin = 4 << 10;
inline constexpr uint64_t kStreamWindowMax = 192 << 10;

// Engine.
inline constexpr int kWorldSizeMax = 64;
inline constexpr size_t kGroupMessageBytesMax = 64 << 20;  // one broadcast of bytes within a group
inline constexpr int kKvBlockTokens = 16;

static_assert(kPromptBytesMax <= kMessageStringMax);
static_assert(kMessageStringMax < kClientMessageBytesMax && kClientMessageBytesMax <= kInternalMessageBytesMax);
static_assert(kContextTokensMax <= kMessageArrayMax);
static_assert(kJobsPerSubmitMax <= kMessageArrayMax);
static_assert(kContextTokensMax % kKvBlockTokens == 0);

}  // namespace optserve::limits
