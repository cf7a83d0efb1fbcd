// connect(), for the hooks that connect on the way (MSG_FASTOPEN).
//
// Threads: any, signal handlers too, but two that connect one descriptor at a time get what they would get
// of a socket: one of the two outcomes. Errors are errno, as connect(2) has it
// (libnvsock/socket/program_errno.hpp).
#pragma once

#include <sys/socket.h>

#include <optional>

namespace nvsock::preload {

// True if `fd` is a TCP or UDP socket whose connect to `to` would not simply be the real one. Keeps errno.
bool would_route(int fd, const sockaddr* to, socklen_t size);

// For a datagram with a destination: `fd` becomes the flow to that place, if it goes to the mount and `fd` is
// none yet, or one to elsewhere. 0, or -1 with errno; nothing: the real function's business, and errno is
// kept. Waits for the drive's answer.
std::optional<int> become_flow(int fd, const sockaddr* to, socklen_t size);

// The hook. Blocks as connect() of the descriptor does.
int connect_routed(int fd, const sockaddr* to, socklen_t size);

}  // namespace nvsock::preload
