#include "preload/mount.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "preload/options.hpp"
#include "preload/settings.hpp"
#include "preload/signals.hpp"
#include "preload/wait.hpp"

namespace nvsock::preload {
namespace {

// What open() says when the path leads to no running csdfs. A numeric name always exists in a live mount.
bool means_no_mount(int error) {
  return error == ENOENT || error == ENOTDIR || error == ENOTCONN || error == ECONNABORTED;
}

}  // namespace

int connect_error(int error) {
  switch (error) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
    case EINTR:
    case EAGAIN:
    case EACCES:
    case EPERM:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
      return error;
    default:
      return ENETUNREACH;
  }
}

Opened open_connection(std::string_view name, int flags) {
  Text<PATH_MAX> path;
  path << settings().mount.view() << "/" << name;
  if (!path.complete()) return {Descriptor(-1), ENETUNREACH, true};

  constexpr int kAlways = O_RDWR | O_CLOEXEC | O_NOCTTY;
  nvsock_info info{};
  Opened opened{Descriptor(::syscall(SYS_openat, AT_FDCWD, path.c_str(), kAlways | flags))};
  if (!opened.file.valid()) {
    opened.missing = means_no_mount(errno);
    opened.error = connect_error(errno);
  } else if (!describe(opened.file.get(), info)) {
    return {Descriptor(-1), ENETUNREACH, true};  // some other file at that path
  }
  return opened;
}

int wait_connected(int fd) {
  const Deadline deadline = Deadline::of_option(fd, SO_SNDTIMEO);
  for (;;) {
    nvsock_info info{};
    if (!describe(fd, info)) return fail(ENETUNREACH);  // csdfs ended meanwhile
    if (info.state == NVSOCK_CONNECTED) return 0;
    if (info.state == NVSOCK_FAILED) {
      int error = 0;
      ask(fd, NVSOCK_IOC_ERROR, &error);
      return fail(error != 0 ? connect_error(error) : ECONNABORTED);
    }
    pollfd wanted{fd, POLLOUT, 0};
    const int ready = ::poll(&wanted, 1, deadline.milliseconds_left());
    if (ready == 0) return fail(EINPROGRESS);
    if (ready < 0 && (errno != EINTR || !would_restart(fd, SO_SNDTIMEO))) return -1;
  }
}

}  // namespace nvsock::preload
