// A log whose reader does not read, and one that somebody floods.
#include "daemon/log_queue.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace nvsock::daemon {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// Takes lines when it is told to. Shared, because the queue's thread may outlast the test that stopped it.
class Reader {
 public:
  explicit Reader(bool reads) : reads_(reads) {}

  static LogOutput output(std::shared_ptr<Reader> reader) {
    return [reader = std::move(reader)](LogLevel, const std::string& line) { reader->take(line); };
  }

  void resume() {
    const std::lock_guard lock(mutex_);
    reads_ = true;
    changed_.notify_all();
  }

  // Once there are `count`, or none came for long.
  std::vector<std::string> lines(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, 10s, [&] { return lines_.size() >= count; });
    return lines_;
  }

  void wait_until_asked() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return asked_; });
  }

 private:
  void take(const std::string& line) {
    std::unique_lock lock(mutex_);
    asked_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return reads_; });
    lines_.push_back(line);
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  bool reads_;
  bool asked_ = false;
};

TEST(LogQueue, ReaderThatDoesNotReadHoldsNobodyUpAndIsToldWhatIsMissing) {
  const auto reader = std::make_shared<Reader>(false);
  LogQueue log(Reader::output(reader), {.lines = 100});
  log.add(LogLevel::debug, "line 0");
  reader->wait_until_asked();  // with it the thread is stuck, and 100 more find room
  const auto start = Clock::now();
  for (int i = 1; i < 5000; ++i) log.add(LogLevel::debug, "line " + std::to_string(i));
  EXPECT_LT(Clock::now() - start, 1s);
  reader->resume();
  std::vector<std::string> lines = reader->lines(102);
  ASSERT_EQ(lines.size(), 102);
  for (size_t i = 0; i <= 100; ++i) EXPECT_EQ(lines[i], "line " + std::to_string(i));
  EXPECT_EQ(lines[101], "4899 lines are missing here: nobody read the log");
  log.add(LogLevel::debug, "and on it goes");
  EXPECT_EQ(reader->lines(103).back(), "and on it goes");
}

TEST(LogQueue, EndWaitsForTheReaderButNotForLong) {
  const auto reader = std::make_shared<Reader>(false);
  auto log = std::make_unique<LogQueue>(Reader::output(reader), LogLimits{.patience = 200ms});
  log->add(LogLevel::info, "nobody reads this");
  const auto start = Clock::now();
  log.reset();
  EXPECT_GE(Clock::now() - start, 200ms);
  EXPECT_LT(Clock::now() - start, 5s);
  reader->resume();
}

TEST(LogQueue, EverythingQueuedIsWrittenAtTheEnd) {
  const auto reader = std::make_shared<Reader>(true);
  {
    LogQueue log(Reader::output(reader));
    for (int i = 0; i < 1000; ++i) log.add(LogLevel::debug, std::to_string(i));
  }
  EXPECT_EQ(reader->lines(1000).size(), 1000);
}

TEST(LogQueue, LinesOfOneCauseAreLimitedAndCounted) {
  const auto reader = std::make_shared<Reader>(true);
  {
    LogQueue log(Reader::output(reader), {.burst = 3, .interval = 1h});
    for (int i = 0; i < 100; ++i) {
      log.add(LogLevel::warning, "10.0.0.1:" + std::to_string(i) + ": host \"nqn." + std::to_string(i) +
                                     " of me\" is unknown, try " + std::to_string(i));
    }
    log.add(LogLevel::warning, "something else");
    log.add(LogLevel::info, "[fe80::1]:80: host \"x\" is unknown, try 1");  // another level is another cause
  }
  const std::vector<std::string> lines = reader->lines(6);
  ASSERT_EQ(lines.size(), 6);
  EXPECT_EQ(lines[2], "10.0.0.1:2: host \"nqn.2 of me\" is unknown, try 2");
  EXPECT_EQ(lines[3], "something else");
  EXPECT_EQ(lines[5],
            "... and 97 more like it, the last: 10.0.0.1:99: host \"nqn.99 of me\" is unknown, try 99");
}

TEST(LogQueue, LimitedLinesAreToldWhenTheIntervalIsOverWithoutAnotherLine) {
  const auto reader = std::make_shared<Reader>(true);
  LogQueue log(Reader::output(reader), {.burst = 1, .interval = 50ms});
  for (int i = 0; i < 5; ++i) log.add(LogLevel::warning, "late " + std::to_string(i));
  EXPECT_EQ(reader->lines(2).at(1), "... and 4 more like it, the last: late 4");
}

TEST(LogQueue, CausesThemselvesAreBounded) {
  const auto reader = std::make_shared<Reader>(true);
  const auto name = [](size_t i) { return std::string(1 + i / 26, static_cast<char>('a' + i % 26)); };
  {
    LogQueue log(Reader::output(reader), {.lines = 10000, .burst = 2, .max_causes = 10, .interval = 1h});
    for (size_t i = 0; i < 1000; ++i) log.add(LogLevel::info, name(i));
  }
  EXPECT_EQ(reader->lines(13).size(), 13);  // ten causes, a burst for all others, and the rest in one line
}

TEST(LogQueue, DebugLinesAreNotLimited) {
  const auto reader = std::make_shared<Reader>(true);
  LogQueue log(Reader::output(reader), {.burst = 1, .interval = 1h});
  for (int i = 0; i < 100; ++i) log.add(LogLevel::debug, "opened");
  EXPECT_EQ(reader->lines(100).size(), 100);
}

TEST(LogQueue, ControlCharactersDoNotReachTheReader) {
  const auto reader = std::make_shared<Reader>(true);
  LogQueue log(Reader::output(reader));
  log.add(LogLevel::info,
          "model \x1b[31mred\n\x7f \xc2\x9b"
          "2J caf\xc3\xa9");
  EXPECT_EQ(reader->lines(1).at(0), "model ?[31mred?? \xc2?2J caf\xc3\xa9");
  log.add(LogLevel::info, std::string(5000, 'x'));
  EXPECT_EQ(reader->lines(2).at(1), std::string(max_log_line, 'x') + "...");
}

TEST(LogQueue, SeveralThreadsLoseNothing) {
  const auto reader = std::make_shared<Reader>(true);
  {
    LogQueue log(Reader::output(reader), {.lines = 4000});
    std::vector<std::thread> writers;
    for (int i = 0; i < 4; ++i) {
      writers.emplace_back([&] {
        for (int n = 0; n < 1000; ++n) log.add(LogLevel::debug, "x");
      });
    }
    for (std::thread& writer : writers) writer.join();
  }
  EXPECT_EQ(reader->lines(4000).size(), 4000);
}

}  // namespace
}  // namespace nvsock::daemon
