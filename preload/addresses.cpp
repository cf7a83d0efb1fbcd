// Who is connected to whom: getpeername(), getsockname().
#include "preload/addresses.hpp"

#include <netinet/in.h>
#include <string.h>

#include <algorithm>

#include "preload/ours.hpp"
#include "preload/real.hpp"

namespace nvsock::preload {
namespace {

// As the kernel hands out addresses: truncated to the room there is, with the full length told.
int tell_address(int fd, unsigned long request, sockaddr* to, socklen_t* size) {
  if (to == nullptr || size == nullptr) return fail(EFAULT);
  if (static_cast<int>(*size) < 0) return fail(EINVAL);
  nvsock_address address{};
  if (ask(fd, request, &address) != 0) {
    nvsock_info info{};
    if (request != NVSOCK_IOC_LOCAL || errno != ENOTCONN || !describe(fd, info)) return -1;
    // Not connected yet, or never: a socket has an address all the same, if only the one of no host.
    address.address.ss_family = static_cast<sa_family_t>(info.domain);
    address.length = info.domain == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  }
  const socklen_t length = std::min<socklen_t>(address.length, sizeof address.address);
  memcpy(to, &address.address, std::min(*size, length));
  *size = length;
  return 0;
}

}  // namespace

int tell_peer(int fd, sockaddr* to, socklen_t* size) {
  return tell_address(fd, NVSOCK_IOC_PEER, to, size);
}

NVSOCK_HOOK int getpeername(int fd, sockaddr* __restrict to, socklen_t* __restrict size) noexcept {
  const Errno saved;
  const int result = real::getpeername(fd, to, size);
  if (result != -1 || !refused_but_ours(fd)) return result;
  return saved.kept_on_success(tell_peer(fd, to, size));
}

NVSOCK_HOOK int getsockname(int fd, sockaddr* __restrict to, socklen_t* __restrict size) noexcept {
  const Errno saved;
  const int result = real::getsockname(fd, to, size);
  if (result != -1 || !refused_but_ours(fd)) return result;
  return saved.kept_on_success(tell_address(fd, NVSOCK_IOC_LOCAL, to, size));
}

}  // namespace nvsock::preload
