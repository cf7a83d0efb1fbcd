// Who is connected to whom.
#pragma once

#include <sys/socket.h>

namespace nvsock::preload {

// getpeername() of a mount file. REQUIRES: is_ours(fd).
int tell_peer(int fd, sockaddr* to, socklen_t* size);

}  // namespace nvsock::preload
