#include "preload/mount.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "preload/connect_error.hpp"
#include "preload/options.hpp"
#include "preload/settings.hpp"
#include "preload/signals.hpp"
#include "preload/wait.hpp"

namespace nvsock::preload {

Opened open_connection(std::string_view name, int flags) {
  Text<PATH_MAX> path;
  path << settings().mount.view() << "/" << name;
  if (!path.complete()) return {Descriptor(-1), no_csdfs, true};

  constexpr int kAlways = O_RDWR | O_CLOEXEC | O_NOCTTY;
  nvsock_info info{};
  Opened opened{Descriptor(::syscall(SYS_openat, AT_FDCWD, path.c_str(), kAlways | flags))};
  if (!opened.file.valid()) {
    opened.missing = means_no_csdfs(errno);
    opened.error = opened.missing ? no_csdfs : told_by_connect(errno);
  } else if (!describe(opened.file.get(), info)) {
    return {Descriptor(-1), no_csdfs, true};  // some other file at that path
  }
  return opened;
}

int wait_connected(int fd) {
  const Deadline deadline = Deadline::of_option(fd, SO_SNDTIMEO);
  for (;;) {
    nvsock_info info{};
    if (!describe(fd, info)) return fail(no_csdfs);  // it ended meanwhile
    if (info.state == NVSOCK_CONNECTED) return 0;
    if (info.state == NVSOCK_FAILED) {
      const int error = take_connect_error(fd);
      return fail(error != 0 ? error : ECONNABORTED);  // 0: another process was told
    }
    pollfd wanted{fd, POLLOUT, 0};
    const int ready = ::poll(&wanted, 1, deadline.milliseconds_left());
    if (ready == 0) return fail(EINPROGRESS);
    if (ready < 0 && (errno != EINTR || !would_restart(fd, SO_SNDTIMEO))) return -1;
  }
}

}  // namespace nvsock::preload
