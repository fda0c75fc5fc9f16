#include "checkpoint/torch/pickle_globals.h"

#include <algorithm>
#include <array>
#include <utility>

namespace optserve::checkpoint {
namespace {

// Modules in which everything is dangerous to call, submodules included.
constexpr auto kDangerousModules = std::to_array<std::string_view>({"os",
                                                                    "posix",
                                                                    "posixpath",
                                                                    "nt",
                                                                    "ntpath",
                                                                    "subprocess",
                                                                    "_posixsubprocess",
                                                                    "sys",
                                                                    "socket",
                                                                    "_socket",
                                                                    "shutil",
                                                                    "runpy",
                                                                    "pty",
                                                                    "importlib",
                                                                    "_frozen_importlib",
                                                                    "_frozen_importlib_external",
                                                                    "imp",
                                                                    "ctypes",
                                                                    "_ctypes",
                                                                    "cffi",
                                                                    "pickle",
                                                                    "_pickle",
                                                                    "cPickle",
                                                                    "dill",
                                                                    "cloudpickle",
                                                                    "joblib",
                                                                    "shelve",
                                                                    "marshal",
                                                                    "code",
                                                                    "codeop",
                                                                    "pdb",
                                                                    "bdb",
                                                                    "timeit",
                                                                    "trace",
                                                                    "cProfile",
                                                                    "profile",
                                                                    "doctest",
                                                                    "webbrowser",
                                                                    "multiprocessing",
                                                                    "asyncio",
                                                                    "concurrent",
                                                                    "threading",
                                                                    "_thread",
                                                                    "commands",
                                                                    "popen2",
                                                                    "pip",
                                                                    "urllib",
                                                                    "urllib2",
                                                                    "http",
                                                                    "requests",
                                                                    "httplib",
                                                                    "ftplib",
                                                                    "smtplib",
                                                                    "telnetlib",
                                                                    "tempfile",
                                                                    "zipimport",
                                                                    "pkgutil",
                                                                    "inspect",
                                                                    "gc",
                                                                    "site",
                                                                    "distutils",
                                                                    "setuptools",
                                                                    "idlelib",
                                                                    "lib2to3",
                                                                    "antigravity",
                                                                    "atexit",
                                                                    "cgitb",
                                                                    "ensurepip",
                                                                    "fcntl",
                                                                    "fabric",
                                                                    "IPython",
                                                                    "mmap",
                                                                    "msvcrt",
                                                                    "nose",
                                                                    "paramiko",
                                                                    "pexpect",
                                                                    "ptyprocess",
                                                                    "pydoc",
                                                                    "pytest",
                                                                    "_pytest",
                                                                    "resource",
                                                                    "rlcompleter",
                                                                    "signal",
                                                                    "socketserver",
                                                                    "sqlite3",
                                                                    "ssl",
                                                                    "sysconfig",
                                                                    "test",
                                                                    "tkinter",
                                                                    "unittest",
                                                                    "venv",
                                                                    "winreg",
                                                                    "_winreg",
                                                                    "wsgiref",
                                                                    "xmlrpc",
                                                                    "zipapp"});

// Single functions of modules that are otherwise harmless.
constexpr auto kDangerousBuiltins = std::to_array<std::string_view>(
    {"eval",   "exec",      "execfile",   "compile", "getattr",    "setattr", "delattr", "__import__", "open",
     "input",  "raw_input", "breakpoint", "globals", "locals",     "vars",    "dir",     "apply",      "map",
     "filter", "reduce",    "file",       "help",    "memoryview", "exit",    "quit",    "type"});

constexpr auto kDangerousNames = std::to_array<std::string_view>({"operator.attrgetter",
                                                                  "operator.itemgetter",
                                                                  "operator.methodcaller",
                                                                  "_operator.attrgetter",
                                                                  "_operator.itemgetter",
                                                                  "_operator.methodcaller",
                                                                  "functools.partial",
                                                                  "functools.reduce",
                                                                  "_functools.partial",
                                                                  "_functools.reduce",
                                                                  "io.open",
                                                                  "_io.open",
                                                                  "io.FileIO",
                                                                  "_io.FileIO",
                                                                  "codecs.open",
                                                                  "torch.load",
                                                                  "torch.serialization.load",
                                                                  "torch.compile",
                                                                  "torch.jit.load",
                                                                  "torch.package.PackageImporter",
                                                                  "numpy.load",
                                                                  "numpy.fromfile",
                                                                  "numpy.memmap",
                                                                  "pandas.eval",
                                                                  "torch.storage._load_from_bytes",
                                                                  "pandas.read_pickle",
                                                                  "platform.popen",
                                                                  "logging.config.listen",
                                                                  "yaml.load",
                                                                  "yaml.unsafe_load",
                                                                  "linecache.getline",
                                                                  "types.CodeType",
                                                                  "types.FunctionType",
                                                                  "types.LambdaType",
                                                                  "types.MethodType"});

constexpr auto kDangerousPrefixes = std::to_array<std::string_view>({"torch.hub.",
                                                                     "torch.jit.",
                                                                     "torch.package.",
                                                                     "torch.serialization.",
                                                                     "torch.ops.",
                                                                     "torch.classes.",
                                                                     "torch.multiprocessing.",
                                                                     "torch.utils.cpp_extension.",
                                                                     "torch.utils.model_zoo.",
                                                                     "torch.utils.collect_env.",
                                                                     "torch.utils.bottleneck.",
                                                                     "torch.distributed.rpc.",
                                                                     "torch.distributed.run.",
                                                                     "torch.distributed.launch.",
                                                                     "torch.distributed.elastic.",
                                                                     "torch._inductor.",
                                                                     "numpy.testing.",
                                                                     "numpy.lib.npyio.",
                                                                     "numpy.f2py.",
                                                                     "numpy.distutils.",
                                                                     "numpy.ctypeslib."});

constexpr auto kStorages = std::to_array<std::pair<std::string_view, DType>>({{"torch.HalfStorage", DType::kF16},
                                                                              {"torch.BFloat16Storage", DType::kBF16},
                                                                              {"torch.FloatStorage", DType::kF32},
                                                                              {"torch.DoubleStorage", DType::kF64},
                                                                              {"torch.LongStorage", DType::kI64},
                                                                              {"torch.IntStorage", DType::kI32},
                                                                              {"torch.ShortStorage", DType::kI16},
                                                                              {"torch.CharStorage", DType::kI8},
                                                                              {"torch.ByteStorage", DType::kU8},
                                                                              {"torch.BoolStorage", DType::kBool}});

constexpr auto kRefusedOpcodes = std::to_array<std::pair<unsigned char, std::string_view>>({{'P', "PERSID"},
                                                                                            {'i', "INST"},
                                                                                            {'o', "OBJ"},
                                                                                            {0x82, "EXT1"},
                                                                                            {0x83, "EXT2"},
                                                                                            {0x84, "EXT4"},
                                                                                            {0x93, "STACK_GLOBAL"},
                                                                                            {'g', "GET"},
                                                                                            {'p', "PUT"},
                                                                                            {'0', "POP"},
                                                                                            {'1', "POP_MARK"},
                                                                                            {'2', "DUP"},
                                                                                            {'I', "INT"},
                                                                                            {'L', "LONG"},
                                                                                            {'F', "FLOAT"},
                                                                                            {'S', "STRING"},
                                                                                            {'V', "UNICODE"},
                                                                                            {0x95, "FRAME"},
                                                                                            {0x94, "MEMOIZE"},
                                                                                            {0x96, "BYTEARRAY8"},
                                                                                            {0x97, "NEXT_BUFFER"},
                                                                                            {0x98, "READONLY_BUFFER"},
                                                                                            {0x8b, "LONG4"},
                                                                                            {0x92, "NEWOBJ_EX"},
                                                                                            {0x8c, "SHORT_BINUNICODE"},
                                                                                            {0x8d, "BINUNICODE8"},
                                                                                            {0x8e, "BINBYTES8"},
                                                                                            {0x8f, "EMPTY_SET"},
                                                                                            {0x90, "ADDITEMS"},
                                                                                            {0x91, "FROZENSET"},
                                                                                            {'d', "DICT"},
                                                                                            {'l', "LIST"},
                                                                                            {'B', "BINBYTES"},
                                                                                            {'C', "SHORT_BINBYTES"}});

bool contains(const auto& list, std::string_view text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

bool is_dangerous(std::string_view name) {
  const std::string_view top = name.substr(0, name.find('.'));
  if (contains(kDangerousModules, top) || contains(kDangerousNames, name)) return true;
  if (top == "builtins" || top == "__builtin__" || top == "__builtins__") {
    const std::string_view leaf = name.substr(std::min(name.size(), top.size() + 1));
    return contains(kDangerousBuiltins, leaf) || leaf.find('.') != std::string_view::npos;
  }
  return std::any_of(kDangerousPrefixes.begin(), kDangerousPrefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

}  // namespace

GlobalRole role_of_global(std::string_view name) {
  if (name == "collections.OrderedDict") return GlobalRole::kOrderedDict;
  if (name == "torch._utils._rebuild_tensor_v2") return GlobalRole::kRebuildTensor;
  if (name == "torch._utils._rebuild_parameter") return GlobalRole::kRebuildParameter;
  if (name == "torch.Size") return GlobalRole::kTorchSize;
  return is_dangerous(name) ? GlobalRole::kDangerous : GlobalRole::kUnknown;
}

std::optional<DType> storage_dtype(std::string_view name) {
  for (const auto& [storage, dtype] : kStorages) {
    if (storage == name) return dtype;
  }
  return std::nullopt;
}

std::string_view refused_opcode_name(unsigned char opcode) {
  for (const auto& [value, name] : kRefusedOpcodes) {
    if (value == opcode) return name;
  }
  return "";
}

}  // namespace optserve::checkpoint
