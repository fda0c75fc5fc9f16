#include "batching/block_allocator.h"

#include <string>
#include <utility>

#include "base/check.h"
#include "base/sha256.h"

namespace optserve::batching {

BlockKey first_key(std::string_view salt) { return sha256(salt); }

BlockKey extend(const BlockKey& before, std::span<const TokenId> tokens) {
  std::string bytes(reinterpret_cast<const char*>(before.data()), before.size());
  bytes.append(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes());
  return sha256(bytes);
}

BlockAllocator::BlockAllocator(int32_t num_blocks) : num_blocks_(num_blocks) {
  check(num_blocks > 0, "a KV pool has at least one block");
  free_.reserve(static_cast<size_t>(num_blocks));
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
  blocks_.resize(static_cast<size_t>(num_blocks));
}

BlockAllocator::Block& BlockAllocator::in_use(int32_t block) {
  check(block >= 0 && block < num_blocks_, "a KV block of the pool");
  Block& found = blocks_[static_cast<size_t>(block)];
  check(found.users > 0, "a KV block that has users");
  return found;
}

int32_t BlockAllocator::allocate() {
  int32_t block = -1;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else {
    check(!unused_.empty(), "KV block allocated from an empty pool");
    block = unused_.front();
    unused_.pop_front();
    auto& key = blocks_[static_cast<size_t>(block)].key;
    by_key_.erase(*key);
    key.reset();
  }
  blocks_[static_cast<size_t>(block)].users = 1;
  return block;
}

void BlockAllocator::release(int32_t block) {
  Block& released = in_use(block);
  if (--released.users > 0) return;
  if (released.key) {
    released.place = unused_.insert(unused_.end(), block);
  } else {
    free_.push_back(block);
  }
}

std::optional<int32_t> BlockAllocator::share(const BlockKey& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return std::nullopt;
  Block& block = blocks_[static_cast<size_t>(found->second)];
  if (block.users++ == 0) unused_.erase(block.place);
  return found->second;
}

void BlockAllocator::publish(int32_t block, const BlockKey& key) {
  Block& published = in_use(block);
  if (!published.key && by_key_.emplace(key, block).second) published.key = key;
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

bool BlockTable::share_next(const BlockKey& key) {
  const auto block = allocator_->share(key);
  if (block) blocks_.push_back(*block);
  return block.has_value();
}

void BlockTable::clear() {
  // From the end, so that the later blocks of a chain are reused before the earlier ones, which are more useful.
  for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) allocator_->release(*block);
  blocks_.clear();
}

}  // namespace optserve::batching
