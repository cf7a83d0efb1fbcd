// The two ways in which signals reach a socket's user but not a file's.
//
// Writing to a connection whose reader is gone raises SIGPIPE; on a FUSE file it only fails with EPIPE.
// And a call that a handler installed with SA_RESTART interrupts goes on, if it is a socket's; the kernel
// never restarts one on a FUSE file. Programs that wait for a child or redraw a window in a handler depend
// on it: their loops do not look for EINTR.
//
// Threads: any, signal handlers too. Nothing blocks but the call that restarting() is given.
#pragma once

#include <sys/types.h>

#include "preload/ours.hpp"

namespace nvsock::preload {

// For the calling thread, as the kernel does it. errno is EPIPE afterwards.
void raise_sigpipe();

// After EINTR on `fd`: would the kernel have restarted a socket's call? Only if every handler installed, but
// those for faults, says SA_RESTART, since which of them ran cannot be known; and if no timeout is set
// (signal(7)).
// `timeout_option` is SO_RCVTIMEO or SO_SNDTIMEO. False if `fd` is not ours. Keeps errno.
bool would_restart(int fd, int timeout_option);

// Makes `call` until it is not interrupted, or interrupted for the caller to see.
template <typename Call>
auto restarting(int fd, int timeout_option, Call call) {
  const Errno saved;
  auto result = call();
  while (result == -1 && errno == EINTR && would_restart(fd, timeout_option)) result = call();
  return saved.kept_on_success(result);
}

}  // namespace nvsock::preload
