// The bookkeeping of the KV pool. A block is a number and has a count of users. A BlockTable holds the blocks of one
// sequence and releases them when it is cleared or destroyed. A block may have a key, which stands for the tokens in it
// and in all blocks before it. Such a block can still be found when it has no users, until its memory is needed; the
// block that has been unused longest is then reused first.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"

namespace optserve::batching {

// Stands for the tokens of a block and all tokens before them, as a chain of SHA-256: equal keys mean equal tokens.
using BlockKey = std::array<uint8_t, 32>;
BlockKey extend(const BlockKey& before, std::span<const TokenId> tokens);
// The key at the beginning of a chain. Sequences with different salts share nothing.
BlockKey first_key(std::string_view salt);

class BlockAllocator {
 public:
  explicit BlockAllocator(int32_t num_blocks);

  int32_t num_blocks() const { return num_blocks_; }
  // Blocks without users, including those that can still be found by their keys.
  int32_t num_free() const { return static_cast<int32_t>(free_.size() + unused_.size()); }
  int32_t allocate();           // a block with one user; the pool must not be empty
  void release(int32_t block);  // removes one user
  // The block with this key, if there is one; it gets one more user.
  std::optional<int32_t> share(const BlockKey& key);
  // Lets share() find `block`, which has users. Does nothing if another block has this key.
  void publish(int32_t block, const BlockKey& key);
  int32_t users(int32_t block) const { return blocks_[static_cast<size_t>(block)].users; }

 private:
  struct Block {
    int32_t users = 0;
    std::optional<BlockKey> key;
    std::list<int32_t>::iterator place;  // in unused_, if it has a key and no user
  };
  Block& in_use(int32_t block);

  int32_t num_blocks_;
  std::vector<Block> blocks_;
  std::vector<int32_t> free_;  // without keys; last in, first out, since blocks used lately are still in the cache
  std::list<int32_t> unused_;  // with keys and without users; the block that has been unused longest comes first
  std::map<BlockKey, int32_t> by_key_;
};

// The blocks of one sequence in order of position. Move-only. The allocator outlives it.
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
  // Takes blocks until the table holds `count`. False if the pool has too few; then it takes none.
  bool grow_to(int32_t count);
  // Appends the block with this key. False if there is none.
  bool share_next(const BlockKey& key);
  void clear();

 private:
  BlockAllocator* allocator_;
  std::vector<int32_t> blocks_;
};

}  // namespace optserve::batching
