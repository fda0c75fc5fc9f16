#include "checkpoint/torch/pickle.h"

#include <gtest/gtest.h>

#include "checkpoint/torch/testing/pt_builder.h"

namespace optserve::checkpoint {
namespace pickle_test {

namespace op = testing::op;
using testing::little;

Result<PickleDocument> run(const std::string& body, const PickleLimits& limits = {}) {
  return read_pickle(op::kProto + body + op::kStop, "x.pt", limits);
}

std::string fault_of(const std::string& body, const PickleLimits& limits = {}) {
  const Result<PickleDocument> result = run(body, limits);
  return result.ok() ? "accepted" : result.refusal().message;
}

std::string half_tensor(int64_t numel, int64_t offset, const std::vector<int64_t>& shape,
                        const std::vector<int64_t>& stride) {
  return op::tensor(op::storage("HalfStorage", "0", numel), offset, shape, stride);
}

TEST(Pickle, PlainValues) {
  const auto result = run(op::dict({{"none", "N"},
                                    {"yes", "\x88"},
                                    {"small", "K\x05"},
                                    {"medium", "M" + little(700, 2)},
                                    {"negative", "J" + little(static_cast<uint32_t>(-3), 4)},
                                    {"long", op::integer(-5'000'000'000)},
                                    {"huge", "\x8a\x09" + std::string(9, '\x01')},
                                    {"half", "G" + std::string("\x3f\xe0\0\0\0\0\0\0", 8)},
                                    {"bytes", std::string("U\x03") + "abc"},
                                    {"longer", "T" + little(4, 4) + "abcd"},
                                    {"list", "](K\x01K\x02" + std::string("e")},
                                    {"pair", std::string("K\x01K\x02\x86")}}));
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  const PickleDocument& doc = result.value();
  const auto at = [&](const char* key) { return *doc.find(doc.root(), key); };
  EXPECT_EQ(doc.kind(at("none")), ValueKind::kNone);
  EXPECT_EQ(doc.integer(at("yes")), 1);
  EXPECT_EQ(doc.integer(at("small")), 5);
  EXPECT_EQ(doc.integer(at("medium")), 700);
  EXPECT_EQ(doc.integer(at("negative")), -3);
  EXPECT_EQ(doc.integer(at("long")), -5'000'000'000);
  EXPECT_EQ(doc.kind(at("huge")), ValueKind::kOpaque);
  EXPECT_EQ(doc.real(at("half")), 0.5);
  EXPECT_EQ(doc.text(at("bytes")), "abc");
  EXPECT_EQ(doc.text(at("longer")), "abcd");
  EXPECT_EQ(doc.items(at("list")).size(), 2u);
  EXPECT_EQ(doc.items(at("pair")).size(), 2u);
  EXPECT_FALSE(doc.find(doc.root(), "absent").has_value());
}

TEST(Pickle, ShortTextsSurviveTheMoveOfTheDocument) {
  auto result = run(op::text("ab"));
  ASSERT_TRUE(result.ok());
  const PickleDocument moved = std::move(result).value();
  EXPECT_EQ(moved.text(moved.root()), "ab");
}

TEST(Pickle, NamespaceAttributesAndUnknownClasses) {
  const auto result = run(op::dict({{"cfg", op::name_space({{"decoder_layers", "K\x08"}})},
                                    {"state", op::call(op::global("metaseq.data", "Iterator"), {op::text("x")}) +
                                                  op::dict({{"n", "K\x01"}}) + "b" + op::text("k") + "N" + "s"}}));
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  const PickleDocument& doc = result.value();
  const ValueId cfg = *doc.find(doc.root(), "cfg");
  EXPECT_EQ(doc.kind(cfg), ValueKind::kOpaque);
  EXPECT_EQ(doc.text(cfg), "argparse.Namespace");
  EXPECT_EQ(doc.integer(*doc.find(cfg, "decoder_layers")), 8);
  EXPECT_EQ(doc.text(*doc.find(doc.root(), "state")), "metaseq.data.Iterator");
}

TEST(Pickle, TensorsAndParameters) {
  const std::string tensor = half_tensor(12, 2, {2, 3}, {5, 1});
  const auto result =
      run(op::dict({{"t", tensor},
                    {"p", op::call(op::global("torch._utils", "_rebuild_parameter"),
                                   {tensor, "\x88", op::global("collections", "OrderedDict") + ")R"})}}));
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  const PickleDocument& doc = result.value();
  const PickleTensor& found = doc.tensor(*doc.find(doc.root(), "p"));
  EXPECT_EQ(found.offset, 2);
  EXPECT_EQ(found.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(found.stride, (std::vector<int64_t>{5, 1}));
  EXPECT_EQ(doc.storages().size(), 1u);  // shared
}

TEST(Pickle, RefusesCallsByName) {
  const std::string evil = op::call(op::global("posix", "system"), {op::text("true")});
  EXPECT_NE(fault_of(evil).find("calls posix.system"), std::string::npos) << fault_of(evil);
  const std::string inside = op::dict({{"cfg", "N"}, {"model", op::dict({{"a", "N"}, {"b", evil}})}});
  EXPECT_NE(fault_of(inside).find("calls posix.system inside 'model' / 'b'"), std::string::npos) << fault_of(inside);
  const std::string outside = op::dict({{"cfg", op::name_space({{"x", evil}})}, {"model", "}"}});
  EXPECT_NE(fault_of(outside).find("calls posix.system inside 'cfg' / 'x'"), std::string::npos) << fault_of(outside);
  const std::string single = "}" + op::text("model") + evil + "s";
  EXPECT_NE(fault_of(single).find("inside 'model'"), std::string::npos) << fault_of(single);
  const std::string nested = op::dict({{"a", "N"}, {"extra", "}" + op::text("x") + evil + "s"}});
  EXPECT_NE(fault_of(nested).find("inside 'extra' / 'x'"), std::string::npos) << fault_of(nested);
  for (const char* name :
       {"builtins eval",           "builtins exec",     "__builtin__ getattr", "builtins __import__",
        "subprocess Popen",        "os.path join",      "nt system",           "sys exit",
        "socket socket",           "shutil rmtree",     "runpy run_path",      "pty spawn",
        "importlib import_module", "ctypes CDLL",       "torch load",          "pickle loads",
        "operator attrgetter",     "functools partial", "types CodeType",      "multiprocessing.pool Pool",
        "numpy.lib.npyio load",    "pydoc pipepager",   "torch.ops load",      "torch.storage _load_from_bytes"}) {
    const std::string text = name;
    const size_t space = text.find(' ');
    const std::string global = op::global(text.substr(0, space), text.substr(space + 1));
    const std::string dotted = text.substr(0, space) + "." + text.substr(space + 1);
    EXPECT_NE(fault_of(op::call(global, {})).find("calls " + dotted), std::string::npos) << dotted;
    EXPECT_NE(fault_of(global + ")\x81").find("creates " + dotted), std::string::npos) << dotted;
    EXPECT_NE(fault_of(op::call(op::global("some", "thing"), {global})).find("passes " + dotted), std::string::npos);
  }
}

// They are never called, so they are harmless here, but a program that gets the result may call them.
TEST(Pickle, RefusesDangerousNamesThatAreOnlyHeld) {
  const std::string system = op::global("posix", "system");
  const std::string object = op::global("some", "Thing") + ")\x81";
  for (const std::string& body :
       {"](" + system + "e", "}" + system + "Ns", object + op::dict({{"__setstate__", system}}) + "b",
        object + system + "b", op::call(op::global("some", "thing"), {op::tuple({"](" + system + "e"})}),
        object + system + "a"}) {
    EXPECT_NE(fault_of(body).find("holds posix.system"), std::string::npos) << fault_of(body);
  }
}

TEST(Pickle, RefusesOpcodesByName) {
  EXPECT_NE(fault_of("(ios\nsystem\n").find("names os.system by opcode INST"), std::string::npos);
  EXPECT_NE(fault_of(op::text("os") + op::text("system") + "\x93").find("names os.system by opcode STACK_GLOBAL"),
            std::string::npos);
  const std::pair<std::string, const char*> cases[] = {
      {"P0\n", "PERSID"},  {"(o", "OBJ"},     {"\x82\x01", "EXT1"},   {"g0\n", "GET"},         {"N0", "POP"},
      {"(NNd", "DICT"},    {"(NNl", "LIST"},  {"(N\x90", "ADDITEMS"}, {"(N\x91", "FROZENSET"}, {"(1", "POP_MARK"},
      {"N2", "DUP"},       {"I1\n", "INT"},   {"L1\n", "LONG"},       {"S'a'\n", "STRING"},    {"\x95", "FRAME"},
      {"\x94", "MEMOIZE"}, {"\x8b", "LONG4"}, {"\x92", "NEWOBJ_EX"}};
  for (const auto& [body, name] : cases) {
    EXPECT_NE(fault_of(body).find(std::string("opcode ") + name + ","), std::string::npos) << fault_of(body);
  }
  EXPECT_NE(fault_of("\xff").find("is not an opcode"), std::string::npos);
}

TEST(Pickle, RefusesDamage) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "exactly one value"},
      {"NN", "exactly one value"},
      {"(N", "exactly one value"},
      {"t", "no mark"},
      {"R", "empty stack"},
      {"NNR", "not a tuple"},
      {"N)R", "not a name"},
      {"h\x01", "memo 1 is empty"},
      {"q\x01", "empty stack"},
      {"(q\x01", "empty stack"},
      {"X" + little(100, 4) + "abc", "cut at byte"},
      {"cos", "does not end"},
      {"N](K\x01K\x02u", "not a dict"},
      {"}(K\x01u", "without a value"},
      {"}K\x01" + std::string("a"), "not a list"},
      {half_tensor(4, 0, {4}, {1}) + "N" + "N" + "s", "not a dict"},
      {half_tensor(4, 0, {4}, {1}) + "}b", "has none"},
  };
  for (const auto& [body, expected] : cases) {
    EXPECT_NE(fault_of(body).find(expected), std::string::npos) << expected << " / " << fault_of(body);
  }
  EXPECT_FALSE(read_pickle("", "x", {}).ok());
  EXPECT_FALSE(read_pickle("N.", "x", {}).ok());
  EXPECT_NE(read_pickle(std::string("\x80\x04N.", 4), "x", {}).refusal().message.find("protocol is 4, expected 2"),
            std::string::npos);
  EXPECT_NE(read_pickle(op::kProto + "N.N", "x", {}).refusal().message.find("exactly one"), std::string::npos);
}

TEST(Pickle, RefusesTensorsThatDoNotFit) {
  const int64_t huge = INT64_MAX;
  const std::pair<std::string, const char*> cases[] = {
      {half_tensor(12, 0, {3, 5}, {5, 1}), "outside"},
      {half_tensor(12, 1, {12}, {1}), "outside"},
      {half_tensor(12, 0, {2}, {12}), "outside"},
      {half_tensor(12, -1, {2}, {1}), "impossible offset"},
      {half_tensor(12, 0, {-2}, {1}), "impossible size"},
      {half_tensor(12, 0, {2}, {-1}), "impossible size"},
      {half_tensor(12, 0, {1 << 20}, {0}), "stride of 0"},
      {half_tensor(12, 0, {2, 2}, {1}), "other strides"},
      {half_tensor(12, 0, {1LL << 40, 1LL << 40}, {1, 1}), "outside"},
      {half_tensor(12, 0, {0, 1LL << 40, 1LL << 40}, {1, 1, 1}), "outside"},
      {half_tensor(12, 0, {huge}, {huge}), "impossible size"},
      {half_tensor(12, 13, {0}, {1}), "outside"},
      {half_tensor(12, 0, std::vector<int64_t>(9, 1), std::vector<int64_t>(9, 1)), "at most 8"},
      {half_tensor(huge, 0, {1}, {1}), "a storage whose"},
      {op::tensor(op::storage("HalfStorage", "0", 4) + "0", 0, {1}, {1}), "POP"},
      {op::storage("EvilStorage", "0", 4), "torch.EvilStorage"},
      {op::storage("HalfStorage", std::string(2000, '1'), 4), "a storage whose"},
      {op::tuple({op::storage("HalfStorage", "0", 4), op::storage("HalfStorage", "0", 5)}), "two ways"},
      {op::tuple({op::storage("HalfStorage", "0", 4), op::storage("FloatStorage", "0", 4)}), "two ways"},
  };
  for (const auto& [body, expected] : cases) {
    EXPECT_NE(fault_of(body).find(expected), std::string::npos) << expected << " / " << fault_of(body);
  }
  EXPECT_EQ(fault_of(half_tensor(12, 12, {0}, {1})), "accepted");
  EXPECT_EQ(fault_of(half_tensor(12, 0, {1, 12}, {0, 1})), "accepted");  // a stride that is never used
}

TEST(Pickle, BudgetsHold) {
  PickleLimits limits;
  limits.opcodes = 100;
  EXPECT_NE(fault_of(std::string(200, 'N'), limits).find("more than 100 opcodes"), std::string::npos);
  EXPECT_NE(fault_of(std::string(300, '(')).find("nests deeper"), std::string::npos);
  limits = {};
  limits.memo_entries = 5;
  std::string memo = "N";
  for (int i = 0; i < 10; ++i) memo += std::string("q") + static_cast<char>(i);
  EXPECT_NE(fault_of(memo, limits).find("remembers more than 5"), std::string::npos);
  limits = {};
  limits.bytes = 50;
  EXPECT_NE(fault_of(std::string(100, 'N'), limits).find("at most 50"), std::string::npos);
  limits = {};
  limits.arena_bytes = 1000;
  EXPECT_NE(fault_of(std::string(500, ']'), limits).find("more than 1000 bytes"), std::string::npos);
  limits = {};
  limits.tensors = 2;
  const std::string tensor = half_tensor(4, 0, {4}, {1});
  EXPECT_NE(fault_of(op::tuple({tensor, tensor, tensor}), limits).find("more than 2 tensors"), std::string::npos);
}

// A list that contains itself, and lists that are shared a billion times: values are shared and never expanded, and are
// freed without recursion.
TEST(Pickle, SelfReferenceAndSharing) {
  EXPECT_EQ(fault_of("]q\x01h\x01" + std::string("a")), "accepted");
  std::string laughs = "]q" + std::string(1, '\0');
  for (int i = 0; i < 100; ++i) {
    laughs += "](h" + std::string(1, static_cast<char>(i)) + "h" + std::string(1, static_cast<char>(i)) + "eq" +
              std::string(1, static_cast<char>(i + 1));
  }
  EXPECT_NE(fault_of(laughs).find("exactly one value"), std::string::npos);
  std::string deep = "";
  for (int i = 0; i < 200'000; ++i) deep += "]";
  for (int i = 1; i < 200'000; ++i) deep += "a";
  EXPECT_EQ(fault_of(deep), "accepted");
}

}  // namespace pickle_test
}  // namespace optserve::checkpoint
