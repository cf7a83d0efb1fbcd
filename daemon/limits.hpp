// Whether this process, or its system, has run out of something that more can be had of, and how.
//
// Threads: event loop only. Nothing blocks.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace nvsock::daemon {

// Of what failed with `error`, an errno: a sentence that names the limit that is reached and the cure. None:
// it is none of ours, as when a drive says ENFILE of its own table.
std::optional<std::string> used_up(int error);

// The same, told not more often than once a minute: what fails for want of something fails often.
class LimitWatch {
 public:
  std::optional<std::string> news(int error);

 private:
  std::optional<std::chrono::steady_clock::time_point> told_;
};

// Raises the limit of descriptors to the hard one, and that one, where it may be, to `wanted`. Returns what
// it is then.
unsigned long raise_descriptors(unsigned long wanted);

}  // namespace nvsock::daemon
