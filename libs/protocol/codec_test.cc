#include "protocol/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <msgpack.hpp>
#include <random>
#include <sstream>

#include "base/limits.h"
#include "protocol/sample_messages.h"

namespace optserve::protocol {
namespace codec_test {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr size_t kClient = limits::kClientMessageBytesMax;
constexpr size_t kInternal = limits::kInternalMessageBytesMax;

std::string golden_path(size_t kind) {
  return std::string(OPTSERVE_TEST_DATA) + "/protocol_v1/" + std::string(message_name(kind)) + ".hex";
}

// Builds frames by hand, right and wrong.
struct Frame {
  Frame(uint64_t version, uint64_t kind) {
    packer.pack_array(3);
    packer.pack(version);
    packer.pack(kind);
  }
  explicit Frame(const Message& like) : Frame(kProtocolVersion, like.index() + 1) {}
  std::string bytes() const { return {buffer.data(), buffer.size()}; }
  Frame& raw(std::string_view more) {
    buffer.write(more.data(), more.size());
    return *this;
  }
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer{buffer};
};

template <class T>
std::string packed(const T& value) {
  msgpack::sbuffer buffer;
  msgpack::pack(buffer, value);
  return {buffer.data(), buffer.size()};
}

using Entries = std::vector<std::pair<std::string, std::string>>;  // packed name, packed value

// The body's map entries of an encoded message.
Entries body_of(const std::string& frame) {
  const auto handle = msgpack::unpack(frame.data(), frame.size());
  const msgpack::object& body = handle->via.array.ptr[2];
  Entries entries;
  for (uint32_t i = 0; i < body.via.map.size; ++i) {
    entries.push_back({packed(body.via.map.ptr[i].key), packed(body.via.map.ptr[i].val)});
  }
  return entries;
}

std::string with_body(const Message& like, const Entries& entries) {
  Frame frame(like);
  frame.packer.pack_map(static_cast<uint32_t>(entries.size()));
  for (const auto& [name, value] : entries) frame.raw(name).raw(value);
  return frame.bytes();
}

testing::AssertionResult is_refused(const std::string& frame, ErrorCode code, const std::string& part) {
  const auto message = decode(frame, kInternal);
  if (message.ok()) return testing::AssertionFailure() << "accepted, expected: " << part;
  if (message.refusal().code != code || message.refusal().message.find(part) == std::string::npos) {
    return testing::AssertionFailure() << error_code_name(message.refusal().code) << ": " << message.refusal().message;
  }
  return testing::AssertionSuccess();
}

class EveryMessage : public ::testing::TestWithParam<size_t> {
 protected:
  Message golden() const { return sample_message(GetParam(), FixedContent()); }
};
std::string kind_name(const testing::TestParamInfo<size_t>& info) { return std::string(message_name(info.param)); }
INSTANTIATE_TEST_SUITE_P(Kinds, EveryMessage, ::testing::Range<size_t>(0, kMessageKinds), kind_name);

TEST_P(EveryMessage, KeepsItsBytes) {
  std::ifstream file(golden_path(GetParam()));
  ASSERT_TRUE(file) << "no golden file " << golden_path(GetParam());
  std::stringstream expected;
  expected << file.rdbuf();
  EXPECT_EQ(golden_text(GetParam()), expected.str()) << "the wire form of a released version never changes";
}

TEST_P(EveryMessage, RoundTripsRandomContent) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  RandomContent content(seed);
  for (int i = 0; i < 300; ++i) {
    const Message message = sample_message(GetParam(), content);
    const std::string frame = encode(message);
    const auto decoded = decode(frame, kInternal);
    ASSERT_TRUE(decoded.ok()) << decoded.refusal().message;
    ASSERT_TRUE(decoded.value() == message);
    ASSERT_EQ(encode(decoded.value()), frame);
  }
}

TEST_P(EveryMessage, RefusesEveryTruncationAndTrailingBytes) {
  const std::string frame = encode(golden());
  for (size_t size = 0; size < frame.size(); ++size) ASSERT_FALSE(decode(frame.substr(0, size), kClient).ok()) << size;
  EXPECT_TRUE(is_refused(frame + '\x00', ErrorCode::kBadRequest, "1 bytes after its end"));
  EXPECT_TRUE(is_refused(frame + frame, ErrorCode::kBadRequest, "bytes after its end"));
}

TEST(Values, AFieldOfAJobThatMeansNothingIsNamed) {
  const auto spec = decode_job_spec(packed(std::map<std::string, double>{{"temprature", 3}, {"temperature", 1}}));
  ASSERT_TRUE(spec.ok()) << spec.refusal().message;
  EXPECT_EQ(spec.value().sampling.temperature, 1.0f);
  EXPECT_EQ(spec.value().unknown_fields, std::vector<std::string>{"temprature"});
}

TEST_P(EveryMessage, SurvivesFlippedBits) {
  const std::string frame = encode(golden());
  for (size_t bit = 0; bit < frame.size() * 8; ++bit) {
    std::string flipped = frame;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto message = decode(flipped, kClient);
    if (!message.ok()) continue;
    const auto again = decode(encode(message.value()), kInternal);
    ASSERT_TRUE(again.ok() && again.value() == known_part(message.value())) << "bit " << bit;
  }
}

TEST_P(EveryMessage, FieldsMayComeInAnyOrderAndBeAbsent) {
  const Entries entries = body_of(encode(golden()));
  const auto reversed = decode(with_body(golden(), Entries(entries.rbegin(), entries.rend())), kClient);
  ASSERT_TRUE(reversed.ok()) << reversed.refusal().message;
  EXPECT_TRUE(reversed.value() == golden());
  const auto empty = decode(with_body(golden(), {}), kClient);
  ASSERT_TRUE(empty.ok()) << empty.refusal().message;
  EXPECT_EQ(empty.value().index(), GetParam());
}

TEST_P(EveryMessage, FieldsTwiceAreRefused) {
  const Entries entries = body_of(encode(golden()));
  for (const auto& entry : entries) {
    Entries doubled = entries;
    doubled.push_back(entry);
    EXPECT_TRUE(is_refused(with_body(golden(), doubled), ErrorCode::kBadRequest, "occurs twice"));
  }
}

TEST_P(EveryMessage, UnknownFieldsAreIgnoredUnlessMandatory) {
  Entries entries = body_of(encode(golden()));
  entries.insert(entries.begin(), {packed(std::string("zz_new")), packed(std::vector<int>{1, 2})});
  entries.push_back({packed(std::string("zz_newer")), packed(std::string("\xff"))});
  const auto message = decode(with_body(golden(), entries), kClient);
  ASSERT_TRUE(message.ok()) << message.refusal().message;
  EXPECT_TRUE(message.value() == golden());
  entries.push_back({packed(std::string("!must")), packed(1)});
  EXPECT_TRUE(is_refused(with_body(golden(), entries), ErrorCode::kUnsupportedVersion, "'!must'"));
  entries.back() = {packed(std::string("zz_newer")), packed(1)};
  EXPECT_TRUE(is_refused(with_body(golden(), entries), ErrorCode::kBadRequest, "'zz_newer' occurs twice"));
  entries.back() = {packed(7), packed(1)};
  EXPECT_TRUE(is_refused(with_body(golden(), entries), ErrorCode::kBadRequest, "text as a field name"));
}

TEST_P(EveryMessage, WrongTypesAreRefusedByName) {
  const Entries entries = body_of(encode(golden()));
  const std::string ext("\xd4\x01\x00", 3);
  const std::string deep = packed(std::vector<std::vector<std::string>>{{"x"}});
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string name = entries[i].first.substr(1);  // all names are short strings: one byte of header
    Entries changed = entries;
    changed[i].second = ext;
    EXPECT_TRUE(is_refused(with_body(golden(), changed), ErrorCode::kBadRequest, "larger than allowed"));
    changed[i].second = deep;
    EXPECT_TRUE(is_refused(with_body(golden(), changed), ErrorCode::kBadRequest,
                           std::string(message_name(GetParam())) + "." + name));
  }
}

// --- the envelope

TEST(Codec, APayloadIsWhatDiffersFromTheDefaults) {
  EXPECT_TRUE(encode_job_payload(JobSpec{}).empty());
  JobSpec spec;
  spec.prompt = "once";
  spec.max_new_tokens = 5;
  const std::string payload = encode_job_payload(spec);
  EXPECT_THAT(payload, HasSubstr("once"));
  EXPECT_THAT(payload, HasSubstr("max_new_tokens"));
  EXPECT_THAT(payload, Not(HasSubstr("delay_ms")));
  spec.delay_ms = 1;
  EXPECT_NE(encode_job_payload(spec), payload);
  spec.delay_ms = 0;
  spec.max_new_tokens = JobSpec{}.max_new_tokens;
  EXPECT_NE(encode_job_payload(spec), payload);
}

TEST(Codec, TheTraceOfARepeatedRequestIsAnotherOneAndTheJobTheSame) {
  JobSpec spec;
  spec.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_TRUE(encode_job_payload(spec).empty());
  EXPECT_THAT(encode_job_spec(JobSpec{}), Not(HasSubstr("traceparent"))) << "an older scheduler refuses such a job";
  EXPECT_EQ(decode_job_spec(encode_job_spec(spec)).value().traceparent, spec.traceparent);
}

TEST(Codec, AMandatoryFieldIsSentOnlyWhenItSaysSomething) {
  ConvertDispatch dispatch{.term = 1, .lease = 2, .job = {}, .spec = {"/in", "/out", "fp16", 2}};
  EXPECT_THAT(encode(dispatch), Not(HasSubstr("quantize")));  // an older converter accepts it
  EXPECT_THAT(encode(dispatch), Not(HasSubstr("verify")));
  dispatch.spec.quantize = "int8";
  dispatch.spec.verify = true;
  EXPECT_THAT(encode(dispatch), HasSubstr("!quantize"));  // an older converter refuses it
  EXPECT_THAT(encode(dispatch), HasSubstr("!verify"));
  EXPECT_TRUE(decode(encode(dispatch), kInternal).value() == Message(dispatch));
}

// Decoding reuses one zone of memory on each thread; a message must not depend on the one before.
TEST(Codec, MessagesDoNotDependOnWhatWasDecodedBefore) {
  Tokens large;
  for (uint32_t i = 0; i < limits::kMessageArrayMax; ++i) {
    large.leases.push_back(i), large.positions.push_back(i), large.tokens.push_back(7), large.finished.push_back(0);
  }
  const Message small = JobEvents{{{JobId::random(), 3, "text", 4, 0, 0}}};
  const std::string small_frame = encode(small), large_frame = encode(large);
  for (const std::string& before : {large_frame, large_frame.substr(0, large_frame.size() / 2), std::string("x")}) {
    (void)decode(before, kInternal);
    const auto decoded = decode(small_frame, kInternal);
    ASSERT_TRUE(decoded.ok());
    EXPECT_TRUE(decoded.value() == small);
  }
  EXPECT_TRUE(decode(large_frame, kInternal).value() == Message(large));
}

TEST(Envelope, OtherVersionsAndKindsAreRefusedWithTheSupportedOnes) {
  const std::string body = "\x80";
  EXPECT_TRUE(is_refused(Frame(0, 1).raw(body).bytes(), ErrorCode::kUnsupportedVersion, "this build speaks 1"));
  EXPECT_TRUE(is_refused(Frame(2, 1).raw(body).bytes(), ErrorCode::kUnsupportedVersion, "protocol version 2"));
  EXPECT_TRUE(is_refused(Frame(1, 0).raw(body).bytes(), ErrorCode::kUnsupportedVersion, "kind 0"));
  EXPECT_TRUE(is_refused(Frame(1, kMessageKinds + 1).raw(body).bytes(), ErrorCode::kUnsupportedVersion, "not known"));
  EXPECT_TRUE(is_refused(Frame(1, UINT64_MAX).raw(body).bytes(), ErrorCode::kUnsupportedVersion, "not known"));
}

TEST(Envelope, OtherShapesAreRefused) {
  for (const std::string& frame : {std::string("\x01"), std::string("\x90"), std::string("\x92\x01\x01"),
                                   std::string("\x94\x01\x01\x80\x80"), std::string("\x80"), std::string("\xc0")}) {
    EXPECT_TRUE(is_refused(frame, ErrorCode::kBadRequest, "[version, kind, body]"));
  }
  EXPECT_TRUE(is_refused("\x93\xff\x01\x80", ErrorCode::kBadRequest, "version is not a number"));
  EXPECT_TRUE(is_refused("\x93\x01\xa1x\x80", ErrorCode::kBadRequest, "kind is not a number"));
  EXPECT_TRUE(is_refused("\x93\x01\x01\x90", ErrorCode::kBadRequest, "Submit: expected a map"));
  EXPECT_TRUE(is_refused("", ErrorCode::kBadRequest, "not well-formed"));
  EXPECT_TRUE(is_refused("\xc1", ErrorCode::kBadRequest, "not well-formed"));  // the byte msgpack never uses
  EXPECT_TRUE(is_refused("GET / HTTP/1.1\r\n\r\n", ErrorCode::kBadRequest, "message"));
}

// --- claims of size, checked before anything is allocated from them

TEST(Limits, HugeHeadersAreRefusedAtOnce) {
  const auto both = [](const std::string& claim, const char* why) {
    EXPECT_TRUE(is_refused(claim, ErrorCode::kBadRequest, why));
    EXPECT_TRUE(is_refused(Frame(1, 1).raw(claim).bytes(), ErrorCode::kBadRequest, why));
  };
  both(std::string("\xdd\xff\xff\xff\xff", 5), "larger than allowed");    // array
  both(std::string("\xdf\xff\xff\xff\xff", 5), "larger than allowed");    // map
  both(std::string("\xdc\x10\x01", 3), "larger than allowed");            // array of 4097
  both(std::string("\xde\x00\x41", 3), "larger than allowed");            // map of 65
  both(packed(std::string((1 << 20) + 1, 'x')), "larger than allowed");   // text of 1 MiB + 1
  both(packed(std::vector<char>((1 << 20) + 1)), "larger than allowed");  // binary
  both(std::string("\xc7\x01\x05x", 4), "larger than allowed");           // any extension
  both(std::string("\xdb\xff\xff\xff\xff", 5), "not well-formed");        // text that is not there
  both(std::string("\xc6\xff\xff\xff\xff", 5), "not well-formed");        // binary
  both(std::string("\xc9\xff\xff\xff\xff\x01", 6), "not well-formed");    // extension
}

TEST(Limits, ArraysOfIdsUpToTheLimit) {
  Submit submit;
  submit.jobs.emplace_back().prompt_ids.assign(limits::kMessageArrayMax, 50'000);
  EXPECT_TRUE(decode(encode(submit), kClient).ok());
  submit.jobs[0].prompt_ids.push_back(1);
  EXPECT_TRUE(is_refused(encode(submit), ErrorCode::kBadRequest, "larger than allowed"));
}

TEST(Limits, TextIsShorterFromClients) {
  Submit submit;
  submit.jobs.emplace_back().prompt.assign(limits::kMessageStringMax, 'x');
  EXPECT_TRUE(decode(encode(submit), kClient).ok());
  submit.jobs[0].prompt += 'x';
  EXPECT_FALSE(decode(encode(submit), kClient).ok());
  EXPECT_TRUE(decode(encode(submit), kInternal).ok());
}

TEST(Limits, FrameSize) {
  const std::string frame = encode(Ping{1});
  EXPECT_TRUE(decode(frame, frame.size()).ok());
  const auto refused = decode(frame, frame.size() - 1);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.refusal().message, HasSubstr("at most " + std::to_string(frame.size() - 1)));
}

TEST(Limits, DepthEightIsTheLast) {
  // The envelope is level 1 and the body level 2; an unknown field holds the rest.
  const auto nested = [](size_t levels) {
    Entries entries{{packed(std::string("zz")), std::string(levels - 2, '\x91') + '\x01'}};
    return with_body(Ping{}, entries);
  };
  EXPECT_TRUE(decode(nested(8), kClient).ok());
  EXPECT_TRUE(is_refused(nested(9), ErrorCode::kBadRequest, "deeper than 8"));
  EXPECT_TRUE(is_refused(nested(500'000), ErrorCode::kBadRequest, "deeper than 8"));
  EXPECT_TRUE(is_refused(std::string(500'000, '\x91'), ErrorCode::kBadRequest, "deeper than 8"));
}

// --- values

template <class T>
std::string ping_with(const T& value) {
  return with_body(Ping{}, {{packed(std::string("number")), packed(value)}});
}
template <class T>
std::string job_with(const std::string& field, const T& value) {
  Frame frame{Submit{}};
  frame.packer.pack_map(1);
  frame.packer.pack(std::string("jobs"));
  frame.packer.pack_array(1);
  frame.packer.pack_map(1);
  frame.packer.pack(field);
  frame.raw(packed(value));
  return frame.bytes();
}

TEST(Values, IntegersKeepEveryBitAndTheirRange) {
  for (const uint64_t value : {uint64_t{0}, (uint64_t{1} << 53) + 1, UINT64_MAX}) {
    const auto message = decode(ping_with(value), kClient);
    ASSERT_TRUE(message.ok());
    EXPECT_EQ(std::get<Ping>(message.value()).number, value);
  }
  EXPECT_TRUE(is_refused(ping_with(-1), ErrorCode::kBadRequest, "Ping.number: integer out of range"));
  EXPECT_TRUE(is_refused(ping_with(1.5), ErrorCode::kBadRequest, "expected an integer"));
  const std::string one_as_float("\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", 9);  // the library packs 1.0 as 1
  EXPECT_TRUE(is_refused(with_body(Ping{}, {{packed(std::string("number")), one_as_float}}), ErrorCode::kBadRequest,
                         "expected an integer"));
  EXPECT_TRUE(is_refused(ping_with(true), ErrorCode::kBadRequest, "expected an integer"));
  EXPECT_TRUE(is_refused(ping_with(std::string("1")), ErrorCode::kBadRequest, "expected an integer"));
  EXPECT_TRUE(decode(job_with("priority", INT32_MIN), kClient).ok());
  EXPECT_TRUE(is_refused(job_with("priority", int64_t{INT32_MAX} + 1), ErrorCode::kBadRequest,
                         "Submit.jobs.priority: integer out of range"));
  EXPECT_TRUE(is_refused(job_with("priority", int64_t{INT32_MIN} - 1), ErrorCode::kBadRequest, "out of range"));
  EXPECT_TRUE(is_refused(job_with("ttl_ms", UINT64_MAX), ErrorCode::kBadRequest, "out of range"));
}

TEST(Values, NumbersAreFinite) {
  for (const double value : {0.0, -0.0, 0.5, 3.0}) EXPECT_TRUE(decode(job_with("temperature", value), kClient).ok());
  EXPECT_TRUE(decode(job_with("temperature", 1), kClient).ok());
  for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL, 1e39, -1e300}) {
    EXPECT_TRUE(is_refused(job_with("temperature", value), ErrorCode::kBadRequest, "not finite")) << value;
  }
  EXPECT_TRUE(is_refused(job_with("temperature", std::nanf("")), ErrorCode::kBadRequest, "not finite"));
  EXPECT_TRUE(is_refused(job_with("temperature", std::string("1")), ErrorCode::kBadRequest, "expected a number"));
}

TEST(Values, BooleansAreNotNumbers) {
  EXPECT_TRUE(is_refused(job_with("ignore_eos", 1), ErrorCode::kBadRequest, "true or false"));
  EXPECT_TRUE(is_refused(job_with("ignore_eos", msgpack::type::nil_t()), ErrorCode::kBadRequest, "true or false"));
}

TEST(Values, TextIsUtf8) {
  for (const char* bad : {"\xff", "a\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    EXPECT_TRUE(is_refused(job_with("prompt", std::string(bad)), ErrorCode::kBadRequest, "not valid UTF-8 from byte"));
  }
  for (const std::string& good : {std::string("\0x", 2), std::string("\ufeffbom"), std::string("\U0010ffff")}) {
    const auto message = decode(job_with("prompt", good), kClient);
    ASSERT_TRUE(message.ok());
    EXPECT_EQ(std::get<Submit>(message.value()).jobs.at(0).prompt, good);
  }
  EXPECT_TRUE(is_refused(job_with("prompt", std::vector<char>{'a'}), ErrorCode::kBadRequest, "expected text"));
}

TEST(Values, EnumerationsAreKnown) {
  EXPECT_TRUE(decode(job_with("kind", 2), kClient).ok());
  EXPECT_TRUE(is_refused(job_with("kind", 0), ErrorCode::kBadRequest, "from 1 to 2"));
  EXPECT_TRUE(is_refused(job_with("kind", 3), ErrorCode::kBadRequest, "from 1 to 2"));
  EXPECT_TRUE(is_refused(job_with("kind", -1), ErrorCode::kBadRequest, "from 1 to 2"));
}

TEST(Values, IdsHaveSixteenBytes) {
  for (const size_t size : {0, 15, 17}) {
    const std::string frame = with_body(Cancel{}, {{packed(std::string("job")), packed(std::vector<char>(size))}});
    EXPECT_TRUE(is_refused(frame, ErrorCode::kBadRequest, "found " + std::to_string(size)));
  }
}

TEST(Values, PositionalStructsGrowAtTheirEnd) {
  const auto events = [](const std::string& event) {
    return with_body(JobEvents{}, {{packed(std::string("events")), "\x91" + event}});
  };
  const auto id = packed(std::vector<char>(16));
  const auto shorter = decode(events("\x92" + id + "\x05"), kClient);
  ASSERT_TRUE(shorter.ok()) << shorter.refusal().message;
  EXPECT_EQ(std::get<JobEvents>(shorter.value()).events.at(0), (JobEvent{{}, 5, "", 0, 0, 0}));
  const auto longer =
      decode(events("\x9c" + id + std::string("\x05\xa1x\x01\x02\x03\x01\x00\xff\xc2\xa3new\x90", 15)), kClient);
  ASSERT_TRUE(longer.ok()) << longer.refusal().message;
  EXPECT_EQ(std::get<JobEvents>(longer.value()).events.at(0), (JobEvent{{}, 5, "x", 1, 2, 3}));
  EXPECT_TRUE(is_refused(events("\x80"), ErrorCode::kBadRequest, "expected an array"));
}

// --- what is stored

TEST(Stored, SpecAndResultRoundTrip) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  RandomContent content(seed);
  for (int i = 0; i < 200; ++i) {
    JobSpec spec;
    fill(spec, content);
    JobResult result;
    fill(result, content);
    const auto spec_back = decode_job_spec(encode_job_spec(spec));
    const auto result_back = decode_job_result(encode_job_result(result));
    ASSERT_TRUE(spec_back.ok() && spec_back.value() == spec);
    ASSERT_TRUE(result_back.ok() && result_back.value() == result);
  }
  EXPECT_FALSE(decode_job_spec("x").ok());
  EXPECT_FALSE(decode_job_result(encode_job_result({}) + "x").ok());
}

}  // namespace codec_test
}  // namespace optserve::protocol
