// One tensor of a foreign checkpoint, read in ranges of rows whatever file format and layout it lies in.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "checkpoint/safetensors/safetensors.h"
#include "checkpoint/torch/pt_file.h"
#include "tensor/dtype.h"

namespace optserve::converter {

class ForeignTensor {
 public:
  ForeignTensor(DType dtype, std::vector<int64_t> shape) : dtype_(dtype), shape_(std::move(shape)) {}
  virtual ~ForeignTensor() = default;

  DType dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t rows() const { return shape_.empty() ? 1 : shape_[0]; }
  int64_t columns() const;  // product of the axes after the first; 1 for vectors
  int64_t elements() const { return rows() * columns(); }

  // Compares the bytes with the checksums of the container, if it has any. Each byte is read once however often asked.
  virtual Status check_bytes() { return ok_status(); }
  // Rows [row, row + count) in dtype(), row-major. Throws Error when the file cannot be read.
  virtual void read_rows(int64_t row, int64_t count, std::span<std::byte> out) const = 0;

 private:
  DType dtype_;
  std::vector<int64_t> shape_;
};

// A tensor of a torch.save file; `file` outlives it, and the layout is PtFile::readable().
std::unique_ptr<ForeignTensor> tensor_of_pt(checkpoint::PtFile& file, const checkpoint::PickleTensor& tensor);

// A tensor of a safetensors file; `file` outlives it.
std::unique_ptr<ForeignTensor> tensor_of_safetensors(const checkpoint::ByteSource& file,
                                                     const checkpoint::StoredTensor& tensor);

// A tensor that no file holds, all of whose elements are `value`.
std::unique_ptr<ForeignTensor> tensor_of_constant(DType dtype, std::vector<int64_t> shape, float value);

// A flattened parameter group: the elements of consecutive shards, without their padding, form one long vector.
struct FlatShard {
  checkpoint::PtFile* file = nullptr;
  checkpoint::PickleTensor tensor;  // one axis, contiguous
  int64_t elements = 0;             // of data; the rest of the shard is padding
};
struct FlatGroup {
  std::vector<FlatShard> shards;
  int64_t elements() const;
};

// `shape` cut out of the vector from element `begin` on.
std::unique_ptr<ForeignTensor> tensor_of_group(std::shared_ptr<const FlatGroup> group, int64_t begin,
                                               std::vector<int64_t> shape);

}  // namespace optserve::converter
