#include "preload/signals.hpp"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "preload/options.hpp"

namespace nvsock::preload {

namespace {

// Raised by the thread's own fault, which a waiting thread does not commit. Crash reporters and sanitizers
// handle them without SA_RESTART.
bool is_fault(int number) {
  constexpr int kFaults[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS};
  return std::find(std::begin(kFaults), std::end(kFaults), number) != std::end(kFaults);
}

}  // namespace

// System calls, because raise() blocks signals around itself and a vfork child may come here.
void raise_sigpipe() {
  ::syscall(SYS_tgkill, ::syscall(SYS_getpid), ::syscall(SYS_gettid), SIGPIPE);
  errno = EPIPE;
}

bool would_restart(int fd, int timeout_option) {
  if (!is_ours(fd)) return false;
  const Errno saved;
  bool restart = true;
  for (int number = 1; restart && number <= SIGRTMAX; ++number) {
    struct sigaction action;
    if (::sigaction(number, nullptr, &action) != 0) continue;  // the two that libc keeps
    const bool handled = action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN && !is_fault(number);
    restart = !handled || (action.sa_flags & SA_RESTART) != 0;
  }
  timeval timeout{};
  socklen_t size = sizeof timeout;
  if (restart && get_option(fd, SOL_SOCKET, timeout_option, &timeout, &size) == 0) {
    restart = timeout.tv_sec == 0 && timeout.tv_usec == 0;
  }
  saved.restore();
  return restart;
}

}  // namespace nvsock::preload
