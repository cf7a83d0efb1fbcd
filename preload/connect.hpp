// connect(), for the hooks that connect on the way (MSG_FASTOPEN).
#pragma once

#include <sys/socket.h>

namespace nvsock::preload {

// True if `fd` is a TCP socket whose connect to `to` would not simply be the real one. Keeps errno.
bool would_route(int fd, const sockaddr* to, socklen_t size);

// The hook.
int connect_routed(int fd, const sockaddr* to, socklen_t size);

}  // namespace nvsock::preload
