// An address as the socket calls take it. Threads: any.
#pragma once

#include <sys/socket.h>

namespace nvsock {

struct SocketAddress {
  sockaddr_storage bytes{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&bytes); }
};

}  // namespace nvsock
