// A pickle of torch.save, read as data. Nothing in it is ever called. A global is a text, a call of an unknown global
// becomes an inert Opaque, and a global that could harm a Python reader is refused by name, whether it is called or
// not.
//
// Reads protocol 2, the one torch.save writes. Every number is checked against a limit before it is used.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"

namespace optserve::checkpoint {

struct PickleLimits {
  uint64_t bytes = 64 << 20;
  uint64_t opcodes = 10'000'000;
  uint64_t memo_entries = 1'000'000;
  uint64_t mark_depth = 256;
  uint64_t key_bytes = 1024;  // of a storage's key and of a tensor's name
  uint64_t tensors = 100'000;
  uint64_t arena_bytes = 256 << 20;  // memory of all values together
  size_t dims = 8;
};

enum class ValueKind : uint8_t {
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kTuple,
  kList,
  kDict,     // also OrderedDict
  kGlobal,   // the name of a class or function
  kStorage,  // of elements, in a record of the zip file
  kTensor,   // a view into a storage
  kOpaque,   // the result of calling something unknown
};

using ValueId = uint32_t;

// One type of elements under one key; `numel` is compared with the record's length by PtFile.
struct PickleStorage {
  DType dtype = DType::kF32;
  std::string_view key;
  int64_t numel = 0;
};

// All numbers count elements. Every element lies inside the storage, and strides of axes longer than 1 are positive.
struct PickleTensor {
  uint32_t storage = 0;  // index into storages()
  int64_t offset = 0;
  std::vector<int64_t> shape;
  std::vector<int64_t> stride;
};

// The values of one pickle in one arena: flat, freed at once, shared where the pickle shares (cycles are possible, so
// walk with a visited set).
class PickleDocument {
 public:
  ValueId root() const { return root_; }
  ValueKind kind(ValueId id) const { return values_[id].kind; }

  int64_t integer(ValueId id) const;                                        // kInt, kBool
  double real(ValueId id) const;                                            // kFloat
  std::string_view text(ValueId id) const;                                  // kString; kGlobal, kOpaque: "module.name"
  const std::vector<ValueId>& items(ValueId id) const;                      // kTuple, kList
  const std::vector<std::pair<ValueId, ValueId>>& pairs(ValueId id) const;  // kDict, in insertion order
  uint32_t storage_index(ValueId id) const;                                 // kStorage
  const PickleTensor& tensor(ValueId id) const;                             // kTensor
  std::optional<ValueId> state(ValueId id) const;                           // kOpaque: what BUILD gave it, if anything

  // The last value under a text key; nullopt if absent. Also looks into the state of an Opaque, such as the attributes
  // of an argparse.Namespace.
  std::optional<ValueId> find(ValueId dict_or_opaque, std::string_view key) const;

  const std::vector<PickleStorage>& storages() const { return storages_; }
  const std::vector<PickleTensor>& tensors() const { return tensors_; }

 private:
  friend class PickleMachine;
  struct Value {
    ValueKind kind = ValueKind::kNone;
    uint32_t index = 0;  // into the vector of its kind
    union {
      int64_t integer = 0;
      double real;
    };
  };
  struct Opaque {
    uint32_t name = 0;  // into names_
    std::optional<ValueId> state;
  };

  std::unique_ptr<const std::string> bytes_;  // the pickle itself: texts point into it, also after a move
  std::deque<Value> values_;                  // deques, since a growing vector takes twice its memory for a moment
  std::vector<std::string_view> texts_;
  std::vector<std::string> names_;
  std::deque<std::vector<ValueId>> sequences_;
  std::deque<std::vector<std::pair<ValueId, ValueId>>> dicts_;
  std::vector<PickleStorage> storages_;
  std::vector<PickleTensor> tensors_;
  std::vector<Opaque> opaques_;
  ValueId root_ = 0;
};

// `file` names the source in messages.
Result<PickleDocument> read_pickle(std::string bytes, std::string_view file, const PickleLimits& limits = {});

// The pickle at the beginning of `bytes`, and the number of bytes it takes.
struct PickleAndSize {
  PickleDocument document;
  size_t bytes = 0;
};
Result<PickleAndSize> read_first_pickle(std::string bytes, std::string_view file, const PickleLimits& limits = {});

}  // namespace optserve::checkpoint
