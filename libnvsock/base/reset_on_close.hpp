// How a TCP socket ends when it is closed, also by the kernel for a process that was killed.
//
// Without this a process that dies in the middle of an upload ends it with FIN, like one that has sent all.
// So sockets that carry somebody else's bytes reset when they are closed, from the start until right before a
// close in good order.
#pragma once

#include <sys/socket.h>

namespace nvsock {

// Whether closing resets the connection, and drops what the peer has not taken.
inline void reset_on_close(int fd, bool resets) {
  const linger at_once{.l_onoff = resets, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

}  // namespace nvsock
