// Which commands the kernel's driver gets and when, and what it tells of them.
#include "libnvsock/port/nvme_driver.hpp"

#include <gtest/gtest.h>

#include <array>

namespace nvsock {
namespace {

TEST(DriverQueue, commands_go_in_the_order_placed) {
  DriverQueue queue;
  EXPECT_FALSE(queue.ready());
  Command read, close, open, next_read;
  read.may_block = next_read.may_block = true;
  for (Command* command : {&read, &close, &open, &next_read}) queue.push(*command);
  EXPECT_EQ(queue.waiting(), 4u);
  for (Command* expected : {&read, &close, &open, &next_read}) {
    ASSERT_TRUE(queue.ready());
    EXPECT_EQ(&queue.take(), expected);
  }
  EXPECT_FALSE(queue.ready());
  EXPECT_EQ(queue.waiting(), 0u);
  EXPECT_EQ(queue.in_flight(), 4u);
}

TEST(DriverQueue, reads_leave_room_for_what_ends_them) {
  DriverQueue queue;
  std::array<Command, 20> reads;
  for (Command& read : reads) {
    read.may_block = true;
    queue.push(read);
  }
  for (unsigned i = 0; i < 12; ++i) queue.take();
  EXPECT_FALSE(queue.ready());
  std::array<Command, 5> closes;
  for (Command& close : closes) queue.push(close);
  for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(&queue.take(), &closes[i]);
  EXPECT_EQ(queue.in_flight(), 16u);
  EXPECT_FALSE(queue.ready()) << "the rest of the tags is not ours";

  queue.finished(reads[0]);
  EXPECT_EQ(&queue.take(), &closes[4]);
  EXPECT_FALSE(queue.ready());
  queue.finished(closes[0]);
  EXPECT_EQ(&queue.take(), &reads[12]);
  EXPECT_FALSE(queue.ready());
}

TEST(DriverQueue, reads_that_were_passed_go_before_younger_ones) {
  DriverQueue queue;
  std::array<Command, 15> reads;
  for (Command& read : reads) read.may_block = true;
  for (size_t i = 0; i < 14; ++i) queue.push(reads[i]);
  Command write;
  queue.push(write);
  queue.push(reads[14]);
  for (unsigned i = 0; i < 12; ++i) EXPECT_EQ(&queue.take(), &reads[i]);
  EXPECT_EQ(&queue.take(), &write);
  EXPECT_FALSE(queue.ready());
  for (size_t i = 0; i < 3; ++i) {
    queue.finished(reads[i]);
    ASSERT_TRUE(queue.ready());
    EXPECT_EQ(&queue.take(), &reads[12 + i]);
  }
  EXPECT_EQ(queue.waiting(), 0u);
}

TEST(DriverCompletion, is_an_errno_or_a_status_without_the_flags_around_it) {
  EXPECT_EQ(driver_completion(-EINTR, 7).error, EINTR);
  EXPECT_FALSE(driver_completion(-EINTR, 7).ok());
  const Completion failed = driver_completion(0x4000 | 0x2000 | 0x1800 | 0x76f, 0);  // DNR, More, CRD
  EXPECT_EQ(failed.error, 0);
  EXPECT_EQ(failed.status, 0x76f);
  const Completion fine = driver_completion(0, 0xfedcba98);
  EXPECT_TRUE(fine.ok());
  EXPECT_EQ(fine.dw0, 0xfedcba98);
}

}  // namespace
}  // namespace nvsock
