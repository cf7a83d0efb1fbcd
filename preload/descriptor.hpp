// A descriptor of the shim's own: closed at the end of the block, and never 0, 1 or 2, which a program that
// closed them expects to get from its own next open().
//
// Threads: any, signal handlers too; an object belongs to one.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace nvsock::preload {

class Descriptor {
 public:
  // Takes what open() or socket() returned; below 3 it moves up. Afterwards get() is -1, with errno, if
  // either failed.
  explicit Descriptor(long fd) : fd_(static_cast<int>(fd)) {
    if (fd_ < 0 || fd_ > STDERR_FILENO) return;
    const int low = fd_;
    fd_ = ::fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close_keeping_errno(low);
  }
  ~Descriptor() {
    if (fd_ >= 0) close_keeping_errno(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  // The system call: close() is a cancellation point, which would leave the descriptor open.
  static void close_keeping_errno(int fd) {
    const int saved = errno;
    ::syscall(SYS_close, fd);
    errno = saved;
  }

  int fd_;
};

inline bool is_nonblocking(int fd) {
  return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

}  // namespace nvsock::preload
