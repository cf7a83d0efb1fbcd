#include "libnvsock/port/nvme_tcp_socket.hpp"

#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>
#include <memory>

namespace nvsock {
namespace {

Result<std::vector<SocketAddress>> look_up(const Endpoint& endpoint) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failure =
      getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  if (failure != 0) return Error{EHOSTUNREACH, "host " + endpoint.host + ": " + gai_strerror(failure)};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> all(found, freeaddrinfo);
  std::vector<SocketAddress> addresses;
  for (; found != nullptr && addresses.size() < max_target_addresses; found = found->ai_next) {
    std::memcpy(&addresses.emplace_back().bytes, found->ai_addr, found->ai_addrlen);
    addresses.back().size = found->ai_addrlen;
  }
  return addresses;
}

}  // namespace

Result<std::vector<SocketAddress>> addresses_of(const NvmeTcpAddress& target) {
  using Transport = NvmeTcpAddress::Transport;
  SocketAddress address;
  if (target.transport == Transport::tcp) {
    address.size = target.endpoint.to_sockaddr(address.bytes);
    if (address.size == 0) return look_up(target.endpoint);
  } else if (target.transport == Transport::unix_socket) {
    auto& name = reinterpret_cast<sockaddr_un&>(address.bytes);
    assert(target.path.size() < sizeof name.sun_path);
    name.sun_family = AF_UNIX;
    target.path.copy(name.sun_path, sizeof name.sun_path - 1);
    address.size = sizeof name;
  } else {
    auto& name = reinterpret_cast<sockaddr_vm&>(address.bytes);
    name.svm_family = AF_VSOCK;
    name.svm_cid = target.cid;
    name.svm_port = target.vsock_port;
    address.size = sizeof name;
  }
  return std::vector{address};
}

bool leaves_machine(const SocketAddress& address) {
  if (address.bytes.ss_family == AF_INET) {
    const auto& name = reinterpret_cast<const sockaddr_in&>(address.bytes);
    return (ntohl(name.sin_addr.s_addr) >> IN_CLASSA_NSHIFT) != IN_LOOPBACKNET;
  }
  if (address.bytes.ss_family == AF_INET6) {
    const auto& name = reinterpret_cast<const sockaddr_in6&>(address.bytes);
    const bool mapped = IN6_IS_ADDR_V4MAPPED(&name.sin6_addr) && name.sin6_addr.s6_addr[12] == IN_LOOPBACKNET;
    return !mapped && !IN6_IS_ADDR_LOOPBACK(&name.sin6_addr);
  }
  return false;
}

int connect_to(const SocketAddress& address) {
  const int fd = socket(address.bytes.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (address.bytes.ss_family == AF_INET || address.bytes.ss_family == AF_INET6) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (connect(fd, address.get(), address.size) != 0 && errno != EINPROGRESS) {
    const int code = errno;
    close(fd);
    errno = code;
    return -1;
  }
  return fd;
}

}  // namespace nvsock
