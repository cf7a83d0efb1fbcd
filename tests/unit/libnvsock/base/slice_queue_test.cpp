// The byte queue of every stream: order, counts, and that blocks are kept exactly as long as needed.
#include "libnvsock/base/slice_queue.hpp"

#include <deque>
#include <string>

#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

class SliceQueueTest : public ::testing::Test {
 protected:
  Slice slice(std::string_view bytes) {
    BufferRef page = pool.take();
    std::memcpy(page.data(), bytes.data(), bytes.size());
    const uint8_t* data = page.data();
    return {std::move(page), data, static_cast<uint32_t>(bytes.size())};
  }
  void append(std::string_view bytes) {
    queue.append_copy(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(),
                      [this] { return pool.take(); });
  }
  std::string content() {
    std::string bytes(queue.bytes() + 1, '?');
    bytes.resize(queue.copy(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()));
    return bytes;
  }
  // What gather() describes.
  std::string gathered(int entries, size_t& size) {
    iovec parts[16];
    const int used = queue.gather(parts, entries, size);
    EXPECT_LE(used, entries);
    std::string bytes;
    for (int i = 0; i < used; ++i) {
      EXPECT_GT(parts[i].iov_len, 0u);
      bytes.append(static_cast<char*>(parts[i].iov_base), parts[i].iov_len);
    }
    EXPECT_EQ(bytes.size(), size);
    return bytes;
  }

  BufferPool pool{page_size, 0};
  SliceQueue queue;
};

TEST_F(SliceQueueTest, is_first_in_first_out) {
  for (const char* text : {"one", "two", "three"}) queue.push(slice(text));
  EXPECT_EQ(queue.slices(), 3u);
  EXPECT_EQ(queue.bytes(), 11u);
  EXPECT_EQ(content(), "onetwothree");
}

TEST_F(SliceQueueTest, consume_crosses_slices_and_may_end_inside_one) {
  for (const char* text : {"one", "two", "three"}) queue.push(slice(text));
  queue.consume(4);
  EXPECT_EQ(content(), "wothree");
  EXPECT_EQ(queue.slices(), 2u);
  queue.consume_front(2);
  EXPECT_EQ(content(), "three");
  EXPECT_EQ(queue.bytes(), 5u);
  queue.consume(5);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.bytes(), 0u);
}

TEST_F(SliceQueueTest, copied_pieces_share_a_page) {
  append("a");
  append("bcd");
  EXPECT_EQ(content(), "abcd");
  EXPECT_EQ(queue.bytes(), 4u);
  EXPECT_EQ(queue.slices(), 1u);
  EXPECT_EQ(pool.lent(), 1u);
}

TEST_F(SliceQueueTest, copied_pieces_go_behind_what_was_consumed_of_their_page) {
  append("abcdef");
  queue.consume(4);
  append("gh");
  EXPECT_EQ(content(), "efgh");
  append(std::string(page_size, 'x'));
  EXPECT_EQ(content(), "efgh" + std::string(page_size, 'x'));
  EXPECT_EQ(queue.slices(), 2u);
}

TEST_F(SliceQueueTest, copied_pieces_leave_a_page_alone_that_somebody_else_holds) {
  append("ab");
  const BufferRef held = queue.front().buffer;
  append("cd");
  EXPECT_EQ(content(), "abcd");
  EXPECT_EQ(queue.slices(), 2u);
}

TEST_F(SliceQueueTest, gather_stops_at_the_entries_and_at_the_size) {
  for (const char* text : {"one", "two", "three"}) queue.push(slice(text));
  size_t size = 100;
  EXPECT_EQ(gathered(16, size), "onetwothree");
  size = 100;
  EXPECT_EQ(gathered(2, size), "onetwo");
  size = 5;
  EXPECT_EQ(gathered(16, size), "onetw");
  size = 0;
  EXPECT_EQ(gathered(16, size), "");
  EXPECT_EQ(queue.bytes(), 11u) << "gather takes nothing";
}

TEST_F(SliceQueueTest, copy_stops_at_the_size_and_takes_nothing) {
  queue.push(slice("one"));
  queue.push(slice("two"));
  uint8_t out[4] = {};
  EXPECT_EQ(queue.copy(out, sizeof out), 4u);
  EXPECT_EQ(std::string_view(reinterpret_cast<char*>(out), 4), "onet");
  EXPECT_EQ(queue.bytes(), 6u);
}

TEST_F(SliceQueueTest, a_block_goes_back_when_its_last_byte_is_taken) {
  queue.push(slice("ab"));
  queue.push(slice("c"));
  queue.consume(1);
  EXPECT_EQ(pool.lent(), 2u);
  queue.consume(1);
  EXPECT_EQ(pool.lent(), 1u);
  queue.clear();
  EXPECT_EQ(pool.lent(), 0u);
  EXPECT_EQ(queue.bytes(), 0u);
}

TEST_F(SliceQueueTest, blocks_go_back_with_the_queue) {
  {
    SliceQueue other;
    for (int i = 0; i < 9; ++i) other.push(slice("x"));
    EXPECT_EQ(pool.lent(), 9u);
  }
  EXPECT_EQ(pool.lent(), 0u);
}

TEST_F(SliceQueueTest, the_ring_wraps_and_grows_without_losing_order) {
  std::deque<std::string> expected;
  std::string all;
  uint32_t random = 7;
  // More slices at the peak than the ring keeps when it runs empty, and several wraps on the way.
  for (int i = 0; i < 3000; ++i) {
    random = random * 1664525u + 1013904223u;
    if (random >> 30 != 0 || expected.empty()) {
      expected.push_back(test::pattern(1 + (random >> 8) % 20, random));
      queue.push(slice(expected.back()));
    } else {
      ASSERT_EQ(queue.front().size, expected.front().size());
      ASSERT_EQ(std::memcmp(queue.front().data, expected.front().data(), expected.front().size()), 0);
      queue.consume_front(queue.front().size);
      expected.pop_front();
    }
    ASSERT_EQ(queue.slices(), expected.size());
  }
  ASSERT_GT(queue.slices(), 512u);
  for (const std::string& part : expected) all += part;
  EXPECT_EQ(content(), all);
  queue.consume(all.size());
  EXPECT_TRUE(queue.empty());
  queue.push(slice("again"));
  EXPECT_EQ(content(), "again");
}

TEST_F(SliceQueueTest, borrowed_bytes_need_no_block) {
  const std::string bytes = "borrowed";
  queue.push({{}, reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<uint32_t>(bytes.size())});
  EXPECT_EQ(content(), bytes);
  queue.consume(bytes.size());
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace nvsock
