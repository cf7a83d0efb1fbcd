#include "cli/invocation.hpp"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string_view>
#include <thread>

namespace nvsock::cli {
Exit exit_status(const Error& error) {
  switch (error.code) {
    case EINVAL:
      return Exit::usage;
    case ENODEV:
    case ENXIO:
    case ENOENT:
      return Exit::no_drive;
    case ENOTSUP:
    case EPROTONOSUPPORT:
    case ENFILE:
      return Exit::cannot;
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return Exit::refused;
    case ETIMEDOUT:
      return Exit::timed_out;
    default:
      return Exit::failed;
  }
}

// A thread, because whoever waits for a stopped daemon of FUSE hears no signal but one that kills.
void limit_time(double seconds) {
  static std::jthread watchdog;
  watchdog = {};  // the last one's end
  if (seconds <= 0) return;
  watchdog = std::jthread([seconds](const std::stop_token& withdrawn) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any().wait_for(lock, withdrawn, std::chrono::duration<double>(seconds),
                                           [] { return false; });
    if (withdrawn.stop_requested()) return;
    constexpr std::string_view sentence = "nvsock: no answer in time (--timeout)\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, sentence.data(), sentence.size());
    _exit(Exit::timed_out);
  });
}

void limit_answer(const Invocation& run) {
  constexpr double patience = 10;
  limit_time(run.timeout >= 0 ? run.timeout : patience);
}

}  // namespace nvsock::cli
