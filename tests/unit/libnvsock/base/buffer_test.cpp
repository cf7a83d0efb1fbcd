// Page-aligned blocks: alignment, reuse, and who keeps them alive.
#include "libnvsock/base/buffer.hpp"

#include <cstring>
#include <memory>
#include <optional>
#include <set>

#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

size_t offset_in_page(const BufferRef& block) {
  return reinterpret_cast<uintptr_t>(block.data()) % page_size;
}

TEST(Buffer, blocks_are_page_aligned_plus_the_skew) {
  BufferPool plain(page_size, 4);
  BufferPool skewed(page_size + 48, 4, page_size - 48);
  std::vector<BufferRef> held;
  for (int i = 0; i < 16; ++i) {
    held.push_back(plain.take());
    EXPECT_EQ(offset_in_page(held.back()), 0u);
    held.push_back(skewed.take());
    EXPECT_EQ(offset_in_page(held.back()), page_size - 48);
    std::memset(held.back().data(), 0xee, held.back().capacity());  // all of it is ours
  }
}

TEST(Buffer, capacity_is_that_of_the_pool) {
  EXPECT_EQ(BufferPool(12345, 1).take().capacity(), 12345u);
}

TEST(Buffer, blocks_in_use_are_distinct) {
  BufferPool pool(page_size, 2);
  std::vector<BufferRef> held;
  std::set<uint8_t*> addresses;
  for (int i = 0; i < 32; ++i) {
    held.push_back(pool.take());
    addresses.insert(held.back().data());
  }
  EXPECT_EQ(addresses.size(), 32u);
  EXPECT_EQ(pool.lent(), 32u);
}

TEST(Buffer, a_block_is_used_again_when_the_last_reference_goes) {
  BufferPool pool(page_size, 2);
  std::optional<BufferRef> first = pool.take();
  const uint8_t* address = first->data();
  std::optional<BufferRef> second = *first;
  EXPECT_FALSE(first->unique());
  first.reset();
  EXPECT_TRUE(second->unique());
  EXPECT_EQ(pool.lent(), 1u);
  EXPECT_NE(pool.take().data(), address) << "still referred to";
  second.reset();
  EXPECT_EQ(pool.lent(), 0u);
  EXPECT_EQ(pool.take().data(), address);
}

TEST(Buffer, references_move_and_assign_like_shared_pointers) {
  BufferPool pool(page_size, 4);
  BufferRef one = pool.take();
  BufferRef two = pool.take();
  const uint8_t* address = two.data();
  one = two;
  EXPECT_EQ(pool.lent(), 1u) << "the block that was assigned over went back";
  EXPECT_EQ(one.data(), address);
  one = *&one;  // to itself
  EXPECT_FALSE(one.unique());
  const BufferRef three = std::move(one);
  EXPECT_FALSE(one);  // NOLINT(bugprone-use-after-move): empty by contract
  two = BufferRef();
  EXPECT_FALSE(two);
  EXPECT_TRUE(three.unique());
}

TEST(Buffer, at_most_keep_blocks_wait_for_reuse) {
  BufferPool pool(page_size, 2);
  std::vector<BufferRef> held;
  std::set<uint8_t*> before;
  for (int i = 0; i < 4; ++i) held.push_back(pool.take());
  for (const BufferRef& block : held) before.insert(block.data());
  // The two that go first are kept; the others are given back to the system, which a sanitizer checks.
  const std::set<uint8_t*> kept{held[3].data(), held[2].data()};
  while (!held.empty()) held.pop_back();
  const BufferRef one = pool.take();
  const BufferRef two = pool.take();
  EXPECT_EQ((std::set<uint8_t*>{one.data(), two.data()}), kept);
}

TEST(Buffer, blocks_outlive_their_pool) {
  auto pool = std::make_unique<BufferPool>(page_size, 8);
  std::vector<BufferRef> held;
  for (int i = 0; i < 3; ++i) held.push_back(pool->take());
  pool->take();  // one that waits for reuse goes with the pool
  pool.reset();
  for (const BufferRef& block : held) {
    std::memset(block.data(), 0x55, block.capacity());
    EXPECT_EQ(block.data()[page_size - 1], 0x55);
  }
  while (!held.empty()) held.pop_back();  // the last one takes the list along; a sanitizer finds what is left
}

}  // namespace
}  // namespace nvsock
