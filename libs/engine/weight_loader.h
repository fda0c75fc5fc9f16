// Gives the blocks of one rank to the layers that ask for them by name, and checks at the end that nothing was left
// over.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "engine/weight_source.h"

namespace optserve::engine {

// An owned tensor in the compute type.
struct Table {
  Buffer buffer;
  Tensor view;
};

class WeightLoader {
 public:
  using Progress = std::function<void(uint64_t done, uint64_t total)>;  // bytes

  WeightLoader(const WeightSource& source, backend::Backend& backend, int rank, int world, Progress progress);

  const model_spec::OptConfig& config() const { return source_.config(); }
  backend::Backend& backend() const { return backend_; }
  int rank() const { return rank_; }
  int world() const { return world_; }

  // The rank's block of a matrix, in the form that linear products need. Aborts if the table has no such tensor.
  quant::Weight matrix(std::string_view name);
  // The rank's block of a vector or a table that is read by element: [rows, cols], or [rows].
  Table table(std::string_view name);
  // Aborts, naming the tensors, unless all of them were taken.
  void expect_all_taken() const;

 private:
  const model_spec::TensorSpec& take(std::string_view name);
  const model_spec::TensorSpec& note(const model_spec::TensorSpec& spec);  // notes that it was taken
  // The bytes of the rank's block on the host, valid until kBuffers blocks later.
  const void* read(const model_spec::TensorSpec& spec);
  // The same for a matrix, with its scales if it is quantised.
  quant::StoredMatrix read_matrix(const model_spec::TensorSpec& spec);
  // Staging memory of `bytes` that no copy to the device still reads.
  std::byte* next_staging(uint64_t bytes);
  // Marks the end of the copies to the device from the block that was read last.
  void uploaded();

  const WeightSource& source_;
  backend::Backend& backend_;
  int rank_;
  int world_;
  Progress progress_;
  std::map<std::string, const model_spec::TensorSpec*, std::less<>> specs_;
  std::set<std::string, std::less<>> taken_;
  // One block is read while the previous one is copied to the device.
  static constexpr size_t kBuffers = 2;
  struct Staging {
    Buffer bytes;
    std::optional<backend::Mark> in_use_until;
  };
  std::array<Staging, kBuffers> staging_;
  size_t turn_ = 0;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

}  // namespace optserve::engine
