// Is this descriptor a connection of csdfs?
//
// Nothing about a descriptor is remembered: duplicates, forks, exec, close_range() and raw system calls
// would make any table stale. A hook calls the real function first and comes here when it said ENOTSOCK;
// the kernel and csdfs know the rest.
//
// Threads: any, signal handlers too. A question to csdfs waits for csdfs, which answers from memory.
#pragma once

#include <errno.h>

#include "libnvsock/mount_abi.h"

namespace nvsock::preload {

// Process-wide, for csdfs itself, which must never talk to its own mount.
void bypass(bool on);

// Preloaded, and not bypassed: the hooks may act.
bool hooks_active();

enum class Kind {
  none,      // not an open mount file, or the hooks may not act
  stream,    // under MOUNT/tcp
  datagram,  // under MOUNT/udp
};

// What kind of mount file `fd` is. Keeps errno. Async-signal-safe. Costs a system call that stays in the
// kernel; the first time on a mount, one question to csdfs.
Kind kind_of(int fd);
inline bool is_ours(int fd) {
  return kind_of(fd) != Kind::none;
}

// The same, asked of csdfs itself and told in full. Keeps errno.
bool describe(int fd, nvsock_info& info);

// One of the mount's ioctls. REQUIRES: is_ours(fd).
long ask(int fd, unsigned long request, void* argument);

// The question every socket hook ends with, after the real function has failed.
inline bool refused_but_ours(int fd) {
  return errno == ENOTSOCK && is_ours(fd);
}

inline int fail(int error) {
  errno = error;
  return -1;
}

// The same, and the kind.
inline Kind refused_kind(int fd) {
  return errno == ENOTSOCK ? kind_of(fd) : Kind::none;
}

// errno as the caller had it: hooks give it back when the emulation succeeds.
class Errno {
 public:
  template <typename Result>
  Result kept_on_success(Result result) const {
    if (result != -1) errno = before_;
    return result;
  }
  void restore() const { errno = before_; }

 private:
  int before_ = errno;
};

}  // namespace nvsock::preload

// A definition that takes the place of libc's.
#define NVSOCK_HOOK extern "C" __attribute__((visibility("default")))
