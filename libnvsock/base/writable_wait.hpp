// The wait for room in a socket, on a descriptor of its own that lives as long as the wait.
//
// Asio would leave the socket registered for output after the first wait, and epoll then reports every
// change of its room, each with a wake-up for nothing. One wait at a time, which costs a descriptor.
// Threads: event loop only. Never blocks.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <utility>

namespace nvsock {

class WritableWait {
 public:
  explicit WritableWait(asio::io_context& loop) : descriptor_(loop) {}

  bool waiting() const { return descriptor_.is_open(); }

  // Calls `then` from the loop when the socket has room, or an error. False, with errno: there is no
  // descriptor left, and it will not be called. REQUIRES: not waiting; `then` keeps this object alive.
  template <typename Then>
  bool start(int socket, Then then) {
    const int fd = fcntl(socket, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return false;
    asio::error_code refused;
    descriptor_.assign(fd, refused);
    if (refused) {
      close(fd);
      errno = refused.value();
      return false;
    }
    descriptor_.async_wait(asio::posix::stream_descriptor::wait_write,
                           [this, then = std::move(then)](const asio::error_code& cancelled) {
                             if (cancelled || !waiting()) return;
                             stop();
                             then();
                           });
    return true;
  }

  // Ends the wait, if there is one, for good: nobody is called.
  void stop() {
    asio::error_code ignored;
    descriptor_.close(ignored);
  }

 private:
  asio::posix::stream_descriptor descriptor_;
};

}  // namespace nvsock
