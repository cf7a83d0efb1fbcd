#include "preload/log.hpp"

#include <sys/stat.h>

#include "preload/descriptor.hpp"

namespace nvsock::preload {
namespace {

// Asked of the open file: its name may lead elsewhere by now. The system calls, because our own hook of
// fstat() is meant for programs.
bool is_owned(int fd) {
  struct statx file;
  return ::syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_UID, &file) == 0 &&
         file.stx_uid == static_cast<uid_t>(::syscall(SYS_geteuid));
}

}  // namespace

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
    constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW;
    const Descriptor file(::syscall(SYS_openat, AT_FDCWD, settings().log.c_str(), kFlags, 0600));
    if (is_owned(file.get())) ::syscall(SYS_write, file.get(), bytes.data(), bytes.size());
  }
  errno = saved;
}

}  // namespace nvsock::preload
