// connect(), for the hooks that connect on the way (MSG_FASTOPEN).
#pragma once

#include <sys/socket.h>

namespace nvsock::preload {

// True if `fd` is a TCP or UDP socket whose connect to `to` would not simply be the real one. Keeps errno.
bool would_route(int fd, const sockaddr* to, socklen_t size);

// For a datagram with a destination: `fd` becomes the flow to that place, if it goes to the mount and `fd` is
// none yet, or one to elsewhere. False: the real function's business. True: `result` is 0, or -1 with errno.
bool become_flow(int fd, const sockaddr* to, socklen_t size, int& result);

// The hook.
int connect_routed(int fd, const sockaddr* to, socklen_t size);

}  // namespace nvsock::preload
