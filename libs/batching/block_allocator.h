// The free list of the KV pool. Blocks are plain numbers; a BlockTable owns those of one sequence and gives them back
// when it is cleared or destroyed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace optserve::batching {

class BlockAllocator {
 public:
  explicit BlockAllocator(int32_t num_blocks);

  int32_t num_blocks() const { return num_blocks_; }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t allocate();           // the pool must not be empty
  void release(int32_t block);  // must be in use

 private:
  int32_t num_blocks_;
  std::vector<int32_t> free_;  // last in, first out: recently used blocks are warm in the cache
  std::vector<bool> in_use_;
};

// Blocks of one sequence in order of position. Move-only; outlived by its allocator.
class BlockTable {
 public:
  explicit BlockTable(BlockAllocator& allocator) : allocator_(&allocator) {}
  ~BlockTable() { clear(); }
  BlockTable(BlockTable&& other) noexcept;
  BlockTable& operator=(BlockTable&& other) noexcept;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  int32_t size() const { return static_cast<int32_t>(blocks_.size()); }
  std::span<const int32_t> blocks() const { return blocks_; }
  // Takes blocks until the table holds `count`; false, with nothing taken, if the pool has too few.
  bool grow_to(int32_t count);
  void clear();

 private:
  BlockAllocator* allocator_;
  std::vector<int32_t> blocks_;
};

}  // namespace optserve::batching
