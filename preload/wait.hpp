// The end of a wait: SO_RCVTIMEO, SO_SNDTIMEO, or never. A value.
//
// Threads: any, signal handlers too.
#pragma once

#include <limits.h>
#include <sys/time.h>
#include <time.h>

#include "preload/options.hpp"

namespace nvsock::preload {

class Deadline {
 public:
  // REQUIRES: is_ours(fd). An option that csdfs does not tell counts as never.
  static Deadline of_option(int fd, int timeout_option) {
    timeval timeout{};
    socklen_t size = sizeof timeout;
    Deadline deadline;
    if (get_option(fd, SOL_SOCKET, timeout_option, &timeout, &size) == 0) {
      const long milliseconds = timeout.tv_sec * 1000 + (timeout.tv_usec + 999) / 1000;
      if (milliseconds != 0) deadline.at_ = now() + milliseconds;
    }
    return deadline;
  }

  bool is_set() const { return at_ != kNever; }

  // As poll() takes it: -1 is forever.
  int milliseconds_left() const {
    if (at_ == kNever) return -1;
    const long left = at_ - now();
    return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : static_cast<int>(left);
  }

 private:
  static constexpr long kNever = LONG_MAX;

  static long now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1'000'000;
  }

  long at_ = kNever;  // milliseconds of CLOCK_MONOTONIC
};

}  // namespace nvsock::preload
