// Who is connected to whom.
//
// Threads: any, signal handlers too. Nothing blocks. Errors are errno, as getpeername(2) has it.
#pragma once

#include <sys/socket.h>

namespace nvsock::preload {

// getpeername() of a mount file. REQUIRES: is_ours(fd).
int tell_peer(int fd, sockaddr* to, socklen_t* size);

}  // namespace nvsock::preload
