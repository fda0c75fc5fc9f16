#include "batching/block_allocator.h"

#include <utility>

#include "base/check.h"

namespace optserve::batching {

BlockAllocator::BlockAllocator(int32_t num_blocks) : num_blocks_(num_blocks) {
  check(num_blocks > 0, "a KV pool has at least one block");
  free_.reserve(static_cast<size_t>(num_blocks));
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
  in_use_.resize(static_cast<size_t>(num_blocks));
}

int32_t BlockAllocator::allocate() {
  check(!free_.empty(), "KV block allocated from an empty pool");
  const int32_t block = free_.back();
  free_.pop_back();
  in_use_[static_cast<size_t>(block)] = true;
  return block;
}

void BlockAllocator::release(int32_t block) {
  check(block >= 0 && block < num_blocks_ && in_use_[static_cast<size_t>(block)], "KV block released but not in use");
  in_use_[static_cast<size_t>(block)] = false;
  free_.push_back(block);
}

BlockTable::BlockTable(BlockTable&& other) noexcept
    : allocator_(other.allocator_), blocks_(std::exchange(other.blocks_, {})) {}

BlockTable& BlockTable::operator=(BlockTable&& other) noexcept {
  if (this != &other) {
    clear();
    allocator_ = other.allocator_;
    blocks_ = std::exchange(other.blocks_, {});
  }
  return *this;
}

bool BlockTable::grow_to(int32_t count) {
  if (count - size() > allocator_->num_free()) return false;
  while (size() < count) blocks_.push_back(allocator_->allocate());
  return true;
}

void BlockTable::clear() {
  for (int32_t block : blocks_) allocator_->release(block);
  blocks_.clear();
}

}  // namespace optserve::batching
