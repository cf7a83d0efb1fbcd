// When a stream's number may be used again.
#include "libnvsock/relay/stream_numbers.hpp"

#include <gtest/gtest.h>

namespace nvsock::relay_v2 {
namespace {

TEST(StreamNumbers, count_up_while_none_is_free) {
  StreamNumbers odd(1), even(2);
  EXPECT_EQ(odd.take(), 1u);
  EXPECT_EQ(odd.take(), 3u);
  EXPECT_EQ(even.take(), 2u);
  EXPECT_TRUE(odd.used(3));
  EXPECT_FALSE(odd.used(5));
}

TEST(StreamNumbers, wait_until_the_last_batch_of_the_old_stream_was_taken) {
  StreamNumbers numbers(1);
  numbers.take();
  numbers.close(1, 10);
  numbers.taken(9);
  EXPECT_EQ(numbers.take(), 3u);
  numbers.taken(10);
  EXPECT_EQ(numbers.take(), 1u);
  EXPECT_EQ(numbers.take(), 5u);
}

TEST(StreamNumbers, are_free_at_once_when_the_last_batch_was_taken_already) {
  StreamNumbers numbers(1);
  numbers.take();
  numbers.taken(10);
  numbers.close(1, 10);
  EXPECT_EQ(numbers.take(), 1u);
}

TEST(StreamNumbers, become_free_in_order) {
  StreamNumbers numbers(1);
  for (int i = 0; i < 3; ++i) numbers.take();
  numbers.close(5, 1);
  numbers.close(1, 2);
  numbers.close(3, 2);
  numbers.taken(1);
  EXPECT_EQ(numbers.waiting(), 2u);
  EXPECT_EQ(numbers.take(), 5u);
  numbers.taken(2);
  EXPECT_EQ(numbers.waiting(), 0u);
  EXPECT_TRUE(numbers.used(5));
}

TEST(StreamNumbers, stay_few_however_many_streams_there_were) {
  StreamNumbers numbers(1);
  for (uint64_t batch = 1; batch < 1'000'000; ++batch) {
    numbers.close(numbers.take(), batch);
    numbers.taken(batch - 1);
  }
  EXPECT_FALSE(numbers.used(5));
}

TEST(StreamNumbers, are_not_given_without_bound_to_a_side_that_is_never_answered) {
  StreamNumbers numbers(1);
  for (size_t i = 0; i < 2 * StreamNumbers::most_waiting; ++i) {
    const uint32_t number = numbers.take();
    ASSERT_NE(number, 0u);
    numbers.close(number, i + 1);
  }
  EXPECT_EQ(numbers.take(), 0u);
  numbers.taken(1);
  EXPECT_EQ(numbers.take(), 1u);
}

}  // namespace
}  // namespace nvsock::relay_v2
