#include "preload/log.hpp"

#include "preload/descriptor.hpp"

namespace nvsock::preload {

bool logging() {
  return !settings().log.view().empty();
}

void write_log(LogText& line) {
  const int saved = errno;
  LogText whole;
  whole << "nvsock[" << ::syscall(SYS_getpid) << "]: " << line.view() << "\n";
  const std::string_view bytes = whole.view();
  if (settings().log.view() == "stderr") {
    ::syscall(SYS_write, STDERR_FILENO, bytes.data(), bytes.size());
  } else {
    constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    const Descriptor file(::syscall(SYS_openat, AT_FDCWD, settings().log.c_str(), kFlags, 0600));
    ::syscall(SYS_write, file.get(), bytes.data(), bytes.size());
  }
  errno = saved;
}

}  // namespace nvsock::preload
