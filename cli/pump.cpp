#include "cli/pump.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "libnvsock/mount_abi.h"

namespace nvsock::cli {
namespace {

constexpr size_t buffer_size = 256 * 1024;

// One direction: what was read and not yet written.
struct Way {
  int from;
  int to;
  bool ended = false;  // `from` has
  std::vector<char> buffer = std::vector<char>(buffer_size);
  size_t start = 0;
  size_t size = 0;

  bool wants_to_read() const { return !ended && size == 0; }
  bool wants_to_write() const { return size > 0; }

  // The errno of `from`, or 0.
  int read_some() {
    const ssize_t got = ::read(from, buffer.data(), buffer.size());
    if (got < 0) return errno == EAGAIN || errno == EINTR ? 0 : errno;
    start = 0;
    size = static_cast<size_t>(got);
    ended = got == 0;
    return 0;
  }

  // The errno of `to`, or 0.
  int write_some() {
    const ssize_t put = ::write(to, buffer.data() + start, size);
    if (put < 0) return errno == EAGAIN || errno == EINTR ? 0 : errno;
    start += static_cast<size_t>(put);
    size -= static_cast<size_t>(put);
    return 0;
  }
};

Error ended_by(const char* whose, int code) {
  return {code, std::string(whose) + ": " + std::strerror(code)};
}

}  // namespace

Result<int> open_connection(const std::string& mount, const Endpoint& where) {
  const int fd = open((mount + "/" + where.path()).c_str(), O_RDWR | O_CLOEXEC);
  if (fd >= 0) return fd;
  const int code = errno == ENOENT || errno == ENOTCONN ? ENODEV : errno;
  const std::string why = code == ENODEV ? "no drive is mounted at " + mount : std::strerror(code);
  return Error{code, "cannot connect to " + where.text() + ": " + why};
}

Result<void> pump(int connection, int in, int out) {
  fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) | O_NONBLOCK);
  Way there{.from = in, .to = connection};
  Way back{.from = connection, .to = out};
  while (true) {
    if (back.ended && !back.wants_to_write()) return {};
    pollfd waits[] = {{.fd = there.wants_to_read() ? in : -1, .events = POLLIN, .revents = 0},
                      {.fd = back.wants_to_write() ? out : -1, .events = POLLOUT, .revents = 0},
                      {.fd = connection, .events = 0, .revents = 0}};
    if (back.wants_to_read()) waits[2].events |= POLLIN;
    if (there.wants_to_write()) waits[2].events |= POLLOUT;
    if (waits[2].events == 0) waits[2].fd = -1;
    if (poll(waits, 3, -1) < 0 && errno != EINTR) return ended_by("poll", errno);

    if (waits[0].revents != 0) {
      if (const int code = there.read_some()) return ended_by("reading", code);
      if (there.ended) {
        const int how = SHUT_WR;
        ioctl(connection, NVSOCK_IOC_SHUTDOWN, &how);
      }
    }
    if (waits[2].revents != 0 && back.wants_to_read()) {
      if (const int code = back.read_some()) return ended_by("the connection", code);
    }
    // What was just read can mostly be written at once.
    if (there.wants_to_write()) {
      if (const int code = there.write_some()) return ended_by("the connection", code);
    }
    if (back.wants_to_write() && (waits[1].revents != 0 || waits[1].fd == -1)) {
      if (const int code = back.write_some()) return ended_by("writing", code);
    }
  }
}

}  // namespace nvsock::cli
