// Descriptors, child processes and the one place where this program waits.
//
// Everything the benchmark starts is owned by an object whose destructor ends it, and every wait has a
// deadline and returns early on SIGINT, SIGTERM and SIGHUP, so that leaving by any road cleans up.
// Not for programs with threads: children are forked and run code of this program.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "libnvsock/base/result.hpp"

namespace bench {

using nvsock::Error;
using nvsock::Result;
using Done = Result<std::monostate>;  // success without a value
using Clock = std::chrono::steady_clock;

// "WHAT: reason", of the current errno.
Error system_error(const std::string& what);

// Owns one descriptor.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd();

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

// Turns the signals that end a program into something wait_readable() sees. Call once, first in main.
Done hold_signals();

// Waits until one of `fds` is readable (POLLIN; for `events`: POLLPRI) and returns its index.
// ETIMEDOUT: the deadline passed. EINTR: a signal asked this program to end; so will every later call.
struct Awaited {
  int fd;
  short events;
};
Result<size_t> wait_for(const std::vector<Awaited>& fds, Clock::time_point deadline);

// Owns one child process; the destructor ends it: SIGTERM, then SIGKILL, each with a bounded wait.
// A child also gets SIGTERM when this program dies without cleaning up.
class Child {
 public:
  // Forks; the child has default signals, runs `body` and exits with its value.
  static Result<Child> start(const std::function<int()>& body);
  Child(Child&& other) noexcept = default;
  Child& operator=(Child&& other) = delete;
  ~Child() { end(); }

  pid_t pid() const { return pid_; }
  int ended_fd() const { return pidfd_.get(); }  // readable when the child has ended

  // Waits for the child's end; its exit status, or 128 + signal. Errors as wait_for().
  Result<int> wait(Clock::time_point deadline);
  void end();

 private:
  Child(pid_t pid, Fd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  bool reap(std::chrono::milliseconds patience);

  pid_t pid_;
  Fd pidfd_;  // none: ended and reaped, or moved from
  int status_ = 0;
};

// The CPUs this program may use, ascending; at least one.
std::vector<int> usable_cpus();

// Keeps the calling process, and the threads it will start, on one CPU. any_cpu leaves it to the scheduler.
inline constexpr int any_cpu = -1;
void stay_on(int cpu);

struct Command {
  std::vector<std::string> argv;                                 // argv[0] is looked up in PATH
  std::vector<std::pair<std::string, std::string>> environment;  // added to ours
  int cpu = any_cpu;                                             // to stay on
};

// Starts a program. What it prints goes to stderr, for stdout has our figures. One that cannot be executed
// says why there and exits with 127.
Result<Child> start(const Command& command);

// Runs a program to its end and returns what it wrote to stdout. It is ended at the deadline (ETIMEDOUT);
// EPROTO: it failed, and has said why on stderr.
Result<std::string> output_of(const Command& command, Clock::time_point deadline);

// Whether `name` is a program of PATH.
bool in_path(const std::string& name);

// User and system time of a running process so far.
Result<std::chrono::milliseconds> cpu_time(pid_t pid);

}  // namespace bench
