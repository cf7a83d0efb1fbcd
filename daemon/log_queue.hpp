// A daemon's log, between the event loop, which must not wait, and whoever reads, who may.
//
// A syslogd that is stopped, a full disk, or a pipe that nobody empties blocks the write of a line for as
// long as it likes. So lines wait in a queue, and a thread of its own writes them. The queue is bounded in
// lines, and the lines in bytes: of what comes when it is full only the number is kept, and told where the
// lines would have been.
//
// A host or a program that does something wrong a million times must not fill a disk either. Lines are
// limited by cause: `burst` of one cause in `interval`, then a line that says how many more there were, with
// the last of them. The cause is what is left of a sentence without its words that have a digit or stand in
// quotes: addresses, numbers and names are what differs between lines of one cause. Lines for debugging are
// not limited, because who asks for them wants each.
//
// Threads: add() from any. The first line starts the writer's: what concerns threads, fork() and privileges
// that are given up, has to be over by then.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "libnvsock/base/log.hpp"

namespace nvsock::daemon {

// Writes one line, without a newline in it. Called on the queue's thread alone; may block for ever.
using LogOutput = std::function<void(LogLevel, const std::string&)>;

LogOutput stderr_output(std::string program);  // "program: warning: text"
LogOutput syslog_output(
    const char* program);  // facility daemon. REQUIRES: the name outlives the process's log

struct LogLimits {
  size_t lines = 1024;       // that wait; with max_log_line, 1 MiB
  unsigned burst = 10;       // lines of one cause in an interval
  unsigned max_causes = 64;  // that are told apart; further ones share a burst
  std::chrono::milliseconds interval = std::chrono::seconds(5);
  std::chrono::milliseconds patience = std::chrono::seconds(1);  // for the reader, at the end
};

inline constexpr size_t max_log_line = 1024;  // bytes; longer ones are cut

class LogQueue {
 public:
  explicit LogQueue(LogOutput output, const LogLimits& limits = {});
  // Waits until everything is written, at most limits.patience; the rest is lost.
  ~LogQueue();
  LogQueue(const LogQueue&) = delete;
  LogQueue& operator=(const LogQueue&) = delete;

  // Never waits for a reader. Control characters become question marks: what a line quotes may come from a
  // drive.
  void add(LogLevel level, std::string_view text);

 private:
  struct Shared;
  void start();

  const std::shared_ptr<Shared> shared_;  // with the thread, which may outlast this in a write
};

}  // namespace nvsock::daemon
