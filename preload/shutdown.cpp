// shutdown(): ends one direction of a connection, or both, for every process that shares it.
#include <sys/socket.h>

#include "preload/ours.hpp"
#include "preload/real.hpp"

namespace nvsock::preload {

NVSOCK_HOOK int shutdown(int fd, int how) noexcept {
  const Errno saved;
  const int result = real::shutdown(fd, how);
  if (result != -1 || !refused_but_ours(fd)) return result;
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return fail(EINVAL);
  return saved.kept_on_success(static_cast<int>(ask(fd, NVSOCK_IOC_SHUTDOWN, &how)));
}

}  // namespace nvsock::preload
