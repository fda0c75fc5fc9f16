#include "converter/formats/foreign_tensor.h"

#include <algorithm>

#include "base/check.h"

namespace optserve::converter {
namespace {

using checkpoint::PickleTensor;
using checkpoint::PtFile;

class PtTensor final : public ForeignTensor {
 public:
  PtTensor(PtFile& file, const PickleTensor& view)
      : ForeignTensor(file.dtype(view), view.shape), file_(file), view_(view) {}
  Status check_bytes() override { return file_.check_storage(view_); }
  void read_rows(int64_t row, int64_t count, std::span<std::byte> out) const override {
    file_.read_rows(view_, row, count, out);
  }

 private:
  PtFile& file_;
  PickleTensor view_;
};

class SafetensorsTensor final : public ForeignTensor {
 public:
  SafetensorsTensor(const checkpoint::ByteSource& file, const checkpoint::StoredTensor& stored)
      : ForeignTensor(stored.dtype, stored.shape), file_(file), offset_(stored.offset) {}
  void read_rows(int64_t row, int64_t count, std::span<std::byte> out) const override {
    const auto row_bytes = static_cast<uint64_t>(columns()) * dtype_bytes(dtype());
    check_eq(out.size(), static_cast<size_t>(count) * row_bytes, "SafetensorsTensor::read_rows: bytes");
    file_.read_at(offset_ + static_cast<uint64_t>(row) * row_bytes, out);
  }

 private:
  const checkpoint::ByteSource& file_;
  uint64_t offset_;
};

class ConstantTensor final : public ForeignTensor {
 public:
  ConstantTensor(DType type, std::vector<int64_t> shape, float value)
      : ForeignTensor(type, std::move(shape)), element_(dtype_bytes(type)) {
    convert_from_f32(&value, type, element_.data(), 1);
  }
  void read_rows(int64_t, int64_t count, std::span<std::byte> out) const override {
    check_eq(out.size(), static_cast<size_t>(count * columns()) * element_.size(), "ConstantTensor::read_rows: bytes");
    for (size_t at = 0; at < out.size(); at += element_.size()) {
      std::ranges::copy(element_, out.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }

 private:
  std::vector<std::byte> element_;
};

class GroupTensor final : public ForeignTensor {
 public:
  GroupTensor(std::shared_ptr<const FlatGroup> group, int64_t begin, std::vector<int64_t> shape)
      : ForeignTensor(group->shards[0].file->dtype(group->shards[0].tensor), std::move(shape)),
        group_(std::move(group)),
        begin_(begin) {}
  Status check_bytes() override {
    for (const FlatShard& shard : group_->shards) {
      if (Status status = shard.file->check_storage(shard.tensor); !status.ok()) return status;
    }
    return ok_status();
  }
  void read_rows(int64_t row, int64_t count, std::span<std::byte> out) const override {
    const size_t element = dtype_bytes(dtype());
    int64_t at = begin_ + row * columns();
    int64_t left = count * columns();
    int64_t shard_begin = 0;
    for (const FlatShard& shard : group_->shards) {
      const int64_t inside = at - shard_begin;
      if (left > 0 && inside < shard.elements) {
        const int64_t take = std::min(left, shard.elements - inside);
        shard.file->read_rows(shard.tensor, inside, take, out.first(static_cast<size_t>(take) * element));
        out = out.subspan(static_cast<size_t>(take) * element);
        at += take;
        left -= take;
      }
      shard_begin += shard.elements;
    }
    check_eq(left, 0, "GroupTensor::read_rows: elements beyond the group");
  }

 private:
  std::shared_ptr<const FlatGroup> group_;
  int64_t begin_;
};

}  // namespace

int64_t ForeignTensor::columns() const {
  int64_t columns = 1;
  for (size_t axis = 1; axis < shape_.size(); ++axis) columns *= shape_[axis];
  return columns;
}

int64_t FlatGroup::elements() const {
  int64_t total = 0;
  for (const FlatShard& shard : shards) total += shard.elements;
  return total;
}

std::unique_ptr<ForeignTensor> tensor_of_pt(PtFile& file, const PickleTensor& tensor) {
  check(PtFile::readable(tensor), "tensor_of_pt: layout");
  return std::make_unique<PtTensor>(file, tensor);
}

std::unique_ptr<ForeignTensor> tensor_of_safetensors(const checkpoint::ByteSource& file,
                                                     const checkpoint::StoredTensor& tensor) {
  return std::make_unique<SafetensorsTensor>(file, tensor);
}

std::unique_ptr<ForeignTensor> tensor_of_constant(DType dtype, std::vector<int64_t> shape, float value) {
  return std::make_unique<ConstantTensor>(dtype, std::move(shape), value);
}

std::unique_ptr<ForeignTensor> tensor_of_group(std::shared_ptr<const FlatGroup> group, int64_t begin,
                                               std::vector<int64_t> shape) {
  return std::make_unique<GroupTensor>(std::move(group), begin, std::move(shape));
}

}  // namespace optserve::converter
