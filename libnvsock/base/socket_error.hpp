// What became of a connect() that did not end at once.
#pragma once

#include <sys/socket.h>

#include <cerrno>

namespace nvsock {

// The pending error of a socket, which is cleared; 0: none. Threads: any. Never blocks.
inline int socket_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

}  // namespace nvsock
