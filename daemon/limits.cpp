#include "daemon/limits.hpp"

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace nvsock::daemon {

std::optional<std::string> used_up(int error) {
  if (error != EMFILE && error != ENFILE && error != ENOMEM && error != ENOBUFS) return std::nullopt;
  // The errno went through a drive, which has limits of its own: only a try of our own tells whose it is.
  const int fd = eventfd(0, EFD_CLOEXEC);
  if (fd >= 0) {
    close(fd);
    return std::nullopt;
  }
  rlimit descriptors{};
  getrlimit(RLIMIT_NOFILE, &descriptors);
  switch (errno) {
    case EMFILE:
      return "RLIMIT_NOFILE " + std::to_string(descriptors.rlim_cur) +
             " is used up: raise it with ulimit -n or LimitNOFILE=, or close connections";
    case ENFILE:
      return "the system's table of open files is full: raise it with sysctl fs.file-max";
    case ENOMEM:
      return "memory is used up: raise ulimit -v or MemoryMax=, or close connections";
    default:
      return std::nullopt;
  }
}

std::optional<std::string> LimitWatch::news(int error) {
  constexpr std::chrono::minutes pause{1};
  const auto now = std::chrono::steady_clock::now();
  if (told_ && now < *told_ + pause) return std::nullopt;
  std::optional<std::string> text = used_up(error);
  if (text) told_ = now;
  return text;
}

unsigned long raise_descriptors(unsigned long wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  // Root may raise the hard limit, too.
  const rlimit raised{.rlim_cur = std::max<rlim_t>(limit.rlim_max, wanted),
                      .rlim_max = std::max<rlim_t>(limit.rlim_max, wanted)};
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &raised) != 0) setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

}  // namespace nvsock::daemon
